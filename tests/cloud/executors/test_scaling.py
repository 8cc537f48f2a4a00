import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridge.cloud.executors.executor import Demand
from hybridge.cloud.executors.scaling import Bounds, missing, superfluous
from hybridge.shared.errors import ConfigError

CALM = Demand(unanswered=0, refused=3, forecast_ms=0.0)
BUSY = Demand(unanswered=5, refused=3, forecast_ms=500.0)
REFUSING = Demand(unanswered=0, refused=4, forecast_ms=0.0)

bounds = st.integers(0, 5).flatmap(
    lambda least: st.builds(
        Bounds, least=st.just(least), most=st.integers(max(1, least), 10), idle_s=st.floats(0, 99)
    )
)
demands = st.builds(
    Demand,
    unanswered=st.integers(0, 100),
    refused=st.integers(0, 10),
    forecast_ms=st.floats(0, 1e4),
)


@pytest.mark.parametrize("demand", [BUSY, REFUSING])
def test_pressure_doubles_until_the_most(demand: Demand) -> None:
    limits, ready, seen = Bounds(least=0, most=7), 0, []
    while more := missing(limits, demand, refused_before=3, ready=ready, starting=0):
        ready += more
        seen.append(ready)
    assert seen == [1, 2, 4, 7]


@pytest.mark.parametrize("demand", [BUSY, REFUSING])
def test_what_starts_is_waited_for(demand: Demand) -> None:
    limits = Bounds(least=0, most=7)
    assert missing(limits, demand, refused_before=3, ready=2, starting=1) == 0


def test_no_pressure_starts_none() -> None:
    short = Demand(unanswered=5, refused=3, forecast_ms=20.0)
    limits = Bounds(least=0, most=7, wait_ms=20.0)
    assert missing(limits, CALM, refused_before=3, ready=0, starting=0) == 0
    assert missing(limits, short, refused_before=3, ready=1, starting=0) == 0
    assert missing(limits, short, refused_before=3, ready=0, starting=0) == 1


@settings(deadline=None)
@given(limits=bounds, demand=demands, before=st.integers(0, 10), data=st.data())
def test_never_beyond_the_bounds(
    limits: Bounds, demand: Demand, before: int, data: st.DataObject
) -> None:
    ready = data.draw(st.integers(0, limits.most))
    starting = data.draw(st.integers(0, limits.most - ready))
    more = missing(limits, demand, refused_before=before, ready=ready, starting=starting)
    assert more >= 0
    assert limits.least <= ready + starting + more <= limits.most


@settings(deadline=None)
@given(limits=bounds, idle_s=st.lists(st.floats(0, 200), max_size=10))
def test_only_idlers_go_and_the_least_stay(limits: Bounds, idle_s: list[float]) -> None:
    less = superfluous(limits, idle_s, starting=0)
    idlers = [each for each in idle_s if each >= limits.idle_s and each > 0]
    assert 0 <= less <= len(idlers)
    assert len(idle_s) - less >= min(limits.least, len(idle_s))
    assert superfluous(limits, idle_s, starting=1) == 0
    if len(idle_s) > limits.least and idlers:
        assert less > 0


@pytest.mark.parametrize(("least", "most"), [(2, 1), (-1, 1), (0, 0)])
def test_bounds_that_cannot_be(least: int, most: int) -> None:
    with pytest.raises(ConfigError, match="workers cannot be"):
        Bounds(least=least, most=most)

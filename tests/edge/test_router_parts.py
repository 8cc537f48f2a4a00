"""Plans whose frames are in layers: what a choice makes of what may have come by the deadline."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from hybridge.edge.demand import Demand
from hybridge.edge.duration import Duration
from hybridge.edge.question import Question, Sight
from hybridge.edge.router import Light, Option, Part, choose, explain
from hybridge.shared.objective import Objective
from hybridge.shared.plan import Plan

from .tables import ROUNDING, option

LAYERED = "split:b8/int8/layers-30"


def layered(
    *parts: tuple[float, float],
    agreement: float = 1.0,
    whole_ms: float = 100.0,
    spread: float = 0.0,
    error: float = 0.0,
) -> Option:
    """Parts as (agreement, when), the shortest first; `spread` of each time, in its own share."""
    whole = option(
        LAYERED, agreement, device_ms=0.0, network_ms=whole_ms, spread_ms=spread * whole_ms,
        error=error,
    )  # fmt: skip
    return replace(
        whole,
        parts=tuple(
            Part(layers, value, Duration(ms, (spread * ms) ** 2))
            for layers, (value, ms) in enumerate(parts, start=1)
        ),
    )


@st.composite
def layered_options(draw: st.DrawFn, *, sure: bool = False) -> Option:
    """Agreements and times grow from one part to the next, up to the whole's."""
    count = draw(st.integers(1, 5))
    values = sorted(draw(st.lists(st.floats(0.5, 1.0), min_size=count, max_size=count)))
    times = sorted(draw(st.lists(st.floats(1.0, 500.0), min_size=count, max_size=count)))
    spread = 0.0 if sure else draw(st.floats(0.0, 1.0))
    *parts, (agreement, whole_ms) = zip(values, times, strict=True)
    return layered(*parts, agreement=agreement, whole_ms=whole_ms, spread=spread)


floors = st.floats(0.0, 0.5)
lefts = st.floats(0.0, 1000.0)


@given(layered_options(), lefts, floors)
def test_it_is_the_mean_over_what_has_come(each: Option, left_ms: float, floor: float) -> None:
    """By the definition: of every part, P(it came and no more did) times what it is worth."""
    whole, anything, gained = each.expected(left_ms, floor)
    came = [part.total.within(left_ms) for part in each.parts] + [each.total.within(left_ms)]
    values = [part.agreement for part in each.parts] + [each.agreement.value]
    assert came == sorted(came, reverse=True)
    mean = sum(
        (own - later) * (value - floor)
        for own, later, value in zip(came, [*came[1:], 0.0], values, strict=True)
    )
    assert whole == came[-1]
    if whole < 0.99:
        assert anything == came[0]
        assert gained == pytest.approx(mean)
    else:  # the rest is not worth the time that it takes to say so
        assert anything == whole
        assert mean - 0.01 <= gained <= mean + ROUNDING


@given(layered_options(sure=True), lefts, floors)
def test_where_times_are_sure_it_is_what_the_longest_part_in_time_is_worth(
    each: Option, left_ms: float, floor: float
) -> None:
    there = [p.agreement for p in each.parts if p.total.mean_ms <= left_ms]
    if each.total_ms <= left_ms:
        there.append(each.agreement.value)
    _, anything, gained = each.expected(left_ms, floor)
    assert anything == (1.0 if there else 0.0)
    assert gained == pytest.approx(there[-1] - floor if there else 0.0)


@given(layered_options(), lefts, floors)
def test_parts_only_add(each: Option, left_ms: float, floor: float) -> None:
    without = replace(each, parts=())
    assert each.expected(left_ms, floor)[2] >= without.expected(left_ms, floor)[2] - ROUNDING
    assert each.expected(left_ms, floor)[1] >= without.expected(left_ms, floor)[1]


@given(layered_options(), lefts, floors, st.floats(0.0, 100.0))
def test_more_time_is_never_worth_less(
    each: Option, left_ms: float, floor: float, more_ms: float
) -> None:
    later = each.expected(left_ms + more_ms, floor)[2]
    assert later >= each.expected(left_ms, floor)[2] - 0.01  # as exact as above


@given(layered_options(), lefts)
def test_a_part_worth_less_than_the_devices_own_is_no_reason(each: Option, left_ms: float) -> None:
    assume(each.parts)
    floor = each.parts[-1].agreement
    _, _, gained = each.expected(left_ms, floor)
    whole = each.total.within(left_ms) * (each.agreement.value - floor)
    assert gained == pytest.approx(whole)


LOCAL = option("local", 0.80, device_ms=5.0, error=0.0)
PARTS = ((0.85, 30.0), (0.90, 50.0), (0.95, 70.0))


@pytest.mark.parametrize(
    ("left_ms", "chosen"),
    [
        (20.0, "local"),  # not even the first layer
        (60.0, LAYERED),  # two layers: 90 %
        (80.0, "split:b8/int8/rans-30"),  # the whole of that one: 98 %
        (100.0, "split:b8/int8/rans-30"),
    ],
)
def test_a_plan_of_fewer_bytes_is_taken_where_it_comes_in_time(left_ms: float, chosen: str) -> None:
    plain = option("split:b8/int8/rans-30", 0.98, device_ms=0.0, network_ms=80.0, error=0.0)
    options = [LOCAL, plain, layered(*PARTS, agreement=0.98)]
    assert str(choose(options, Question(left_ms=left_ms)).option.plan) == chosen


def test_the_less_sure_the_link_the_more_layers_are_worth() -> None:
    """Equal agreement; the plain frame is a tenth smaller, and all or nothing."""

    def chosen(spread: float) -> str:
        plain = option(
            "split:b8/int8/rans-30", 0.98, device_ms=0.0, network_ms=90.0, error=0.001,
            spread_ms=spread * 90.0,
        )  # fmt: skip
        both = [LOCAL, plain, layered(*PARTS, agreement=0.98, spread=spread, error=0.001)]
        return str(choose(both, Question(left_ms=110.0)).option.plan)

    assert chosen(0.02) == "split:b8/int8/rans-30"
    assert chosen(0.5) == LAYERED


def test_what_is_sooner_and_all_or_nothing_is_no_tie() -> None:
    plain = option("split:b8/int8/rans-30", 1.0, network_ms=80.0, spread_ms=60.0, error=0.05)
    parts = layered(*PARTS, whole_ms=90.0, spread=0.7, error=0.001)
    taken = choose([LOCAL, plain, parts], Question(left_ms=95.0))
    assert taken.option is parts
    assert taken.in_time > parts.total.within(95.0)


def test_an_objective_that_demands_a_share_counts_the_whole_alone() -> None:
    parts = layered(*PARTS, agreement=0.99, whole_ms=200.0)
    demand = Demand(objective=Objective.BYTES, min_agreement=0.9)
    taken = choose([LOCAL, parts], Question(left_ms=100.0, demand=demand))
    assert taken.option is parts  # the best there is, though not enough
    assert taken.in_time == 1.0
    plain = option("cloud:raw", 0.91, network_ms=50.0, size_bytes=10**6)
    taken = choose([LOCAL, parts, plain], Question(left_ms=100.0, demand=demand))
    assert taken.option is plain


def test_the_light_model_goes_first_where_parts_lose_nothing_by_it() -> None:
    enough = choose([LOCAL, layered((0.95, 10.0), whole_ms=50.0)], Question(left_ms=200.0))
    scarce = choose([LOCAL, layered((0.95, 10.0), whole_ms=150.0)], Question(left_ms=14.0))
    assert enough.light is Light.FIRST
    assert scarce.light is not Light.FIRST


def test_it_is_said_in_words() -> None:
    parts = layered(*PARTS, whole_ms=200.0, spread=0.4)
    other = layered((0.82, 30.0), agreement=0.99, whole_ms=150.0, spread=0.4)
    other = replace(other, plan=Plan.parse("split:b9/int8/layers-30"))
    said = {str(o.plan): why for o, why in explain([LOCAL, parts, other], Question(left_ms=100.0))}
    whole, anything, gained = parts.expected(100.0, 0.0)
    assert said[LAYERED] == (
        f"taken: the best expected agreement, {gained / anything:.1%} of what comes; all of it in "
        f"time with {whole:.0%}, layers to answer from with {anything:.0%}"
    )
    assert said["split:b9/int8/layers-30"].startswith("answers from what has come, agreeing with 8")


def test_it_is_asked_for_no_fewer_layers_than_are_worth_an_answer() -> None:
    parts = layered(*PARTS)
    assert (parts.least_layers, parts.least) == (1, Duration(30.0))
    assert (LOCAL.least_layers, LOCAL.least) == (None, LOCAL.total)


def test_after_the_lights_answer_too() -> None:
    sight = Question(left_ms=60.0, sight=Sight(0.5, enough=False))
    assert str(choose([LOCAL, layered(*PARTS)], sight).option.plan) == LAYERED
    assert choose([LOCAL, layered((0.7, 30.0))], sight).option.plan == Plan.local()


@given(layered_options(), lefts)
def test_what_will_hardly_come_in_time_is_not_sent(each: Option, left_ms: float) -> None:
    most = each.most_layers(left_ms)
    chances = {part.layers: part.total.within(left_ms) for part in each.parts}
    if most is None:
        assert not each.parts or each.total.within(left_ms) >= 0.1 or not any(chances.values())
    elif chances[most] < 0.1:
        assert most == each.least_layers
        assert max(chances.values()) < 0.1
    else:
        assert all(chances[later] < 0.1 for later in chances if later > most)
        assert each.total.within(left_ms) < 0.1

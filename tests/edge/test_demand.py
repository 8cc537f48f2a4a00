import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.demand import ANYTHING, Demand, read_demand
from hybridge.shared.errors import ConfigError, RequestError
from hybridge.shared.objective import Objective
from hybridge.shared.oip import Value
from hybridge.shared.plan import Plan

from ..bundles import CLOUD, LOCAL, SPLIT

sizes = st.integers(0, 10**9)


@given(sizes, st.floats(0, 1e9))
def test_what_stays_here_is_never_forbidden(size_bytes: int, spent: float) -> None:
    strictest = Demand(stay=True, only_cuts=True, max_similarity=0.0, bytes_per_hour=0.0)
    assert strictest.forbids(LOCAL, size_bytes, spent_bytes=spent) == ""


@given(sizes, st.floats(0, 1e9))
def test_who_asks_for_nothing_forbids_nothing(size_bytes: int, spent: float) -> None:
    for plan in (LOCAL, SPLIT, CLOUD):
        assert ANYTHING.forbids(plan, size_bytes, spent_bytes=spent) == ""


def test_reasons() -> None:
    assert "device" in Demand(stay=True).forbids(SPLIT, 1)
    assert "no pictures" in Demand(only_cuts=True).forbids(CLOUD, 1)
    assert Demand(only_cuts=True).forbids(SPLIT, 1) == ""
    hourly = Demand(bytes_per_hour=1_000.0)
    assert hourly.forbids(SPLIT, 600, spent_bytes=400) == ""
    assert "1,000 bytes an hour" in hourly.forbids(SPLIT, 600, spent_bytes=401)


@pytest.mark.parametrize(
    ("plan", "similarity", "why"),
    [
        (SPLIT, 0.3, ""),
        (SPLIT, 0.31, "pictures rebuilt from it were alike to 0.31, 0.30 is allowed"),
        (SPLIT, -0.1, ""),
        (SPLIT, None, "nobody has measured what it gives away, 0.30 is allowed"),
        (CLOUD, None, "the picture itself is alike to 1.00, 0.30 is allowed"),
        (CLOUD, 0.0, "the picture itself is alike to 1.00, 0.30 is allowed"),
        (LOCAL, None, ""),
    ],
)
def test_what_gives_away_too_much(plan: Plan, similarity: float | None, why: str) -> None:
    assert Demand(max_similarity=0.3).forbids(plan, 1, similarity=similarity) == why
    assert ANYTHING.forbids(plan, 1, similarity=similarity) == ""


@pytest.mark.parametrize("limit", [-0.1, 1.1, 30.0, math.nan, math.inf])
def test_a_limit_is_one(limit: float) -> None:
    with pytest.raises(ConfigError, match="max_similarity"):
        Demand(max_similarity=limit)
    with pytest.raises(RequestError, match="max_similarity"):
        read_demand({"max_similarity": limit}, ANYTHING)
    with pytest.raises(RequestError, match="max_similarity"):
        read_demand({"max_similarity": limit}, Demand(max_similarity=0.3))


def test_what_is_enough() -> None:
    assert ANYTHING.enough is None
    assert Demand(min_agreement=0.9).enough == 0.9
    for objective in Objective:
        least = None if objective is Objective.ACCURACY else 0.98
        assert Demand(objective=objective).enough == least
        assert Demand(objective=objective, min_agreement=0.7).enough == 0.7


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, 98.0, math.nan, math.inf])
def test_a_share_is_one(share: float) -> None:
    with pytest.raises(ConfigError, match="min_agreement"):
        Demand(min_agreement=share)
    with pytest.raises(RequestError, match="min_agreement"):
        read_demand({"min_agreement": share}, ANYTHING)


@pytest.mark.parametrize(
    "parameters",
    [
        {"objective": "speed"},
        {"objective": 1},
        {"objective": True},
        {"min_agreement": "most"},
        {"min_agreement": True},
        {"stay_local": 1},
        {"stay_local": "yes"},
        {"only_cuts": 0.0},
        {"only_cuts": ""},
        {"max_similarity": "little"},
        {"max_similarity": True},
        {"bytes_per_hour": -1},
        {"bytes_per_hour": "few"},
        {"bytes_per_hour": math.nan},
        {"bytes_per_hour": -math.inf},
    ],
    ids=str,
)
def test_nonsense_is_refused(parameters: dict[str, Value]) -> None:
    with pytest.raises(RequestError, match=next(iter(parameters))):
        read_demand(parameters, ANYTHING)
    with pytest.raises(RequestError):
        read_demand(parameters, Demand(stay=True, bytes_per_hour=5.0))


def test_what_a_request_asks_for() -> None:
    asked: dict[str, Value] = {
        "objective": "bytes",
        "min_agreement": "0.95",
        "stay_local": "true",
        "only_cuts": True,
        "max_similarity": 0.25,
        "bytes_per_hour": 1e6,
    }
    assert read_demand(asked, ANYTHING) == Demand(
        objective=Objective.BYTES,
        min_agreement=0.95,
        stay=True,
        only_cuts=True,
        max_similarity=0.25,
        bytes_per_hour=1e6,
    )


def test_who_asks_for_nothing_gets_what_holds_for_all() -> None:
    default = Demand(objective=Objective.COST, min_agreement=0.9, only_cuts=True)
    assert read_demand({}, default) is default
    assert read_demand({"latency_budget_ms": 5.0}, default) is default
    assert read_demand({"objective": "latency"}, default).min_agreement == 0.9


demands = st.builds(
    Demand,
    stay=st.booleans(),
    only_cuts=st.booleans(),
    max_similarity=st.floats(0, 1),
    bytes_per_hour=st.floats(0, 1e6) | st.just(math.inf),
)


@given(
    demands,
    st.fixed_dictionaries(
        {},
        optional={
            "stay_local": st.booleans(),
            "only_cuts": st.booleans(),
            "max_similarity": st.floats(0, 1),
            "bytes_per_hour": st.floats(0, 2e6) | st.just(math.inf),
            "objective": st.sampled_from([str(each) for each in Objective]),
        },
    ),
    sizes,
)
def test_a_request_can_forbid_more_and_never_less(
    default: Demand, parameters: dict[str, Value], size_bytes: int
) -> None:
    demand = read_demand(parameters, default)
    for plan in (SPLIT, CLOUD):
        if default.forbids(plan, size_bytes):
            assert demand.forbids(plan, size_bytes)

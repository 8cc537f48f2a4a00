from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wan.records import Record
from wan.replays import LOCAL, Costs, costs_of, front, next_replay
from wan.scoring import oracle

from hybridge.shared.manifest import PlanRow, Rate

from .test_scoring import record

PLANS = {
    LOCAL: Costs(0.7, 0, 10),
    "cloud:raw": Costs(1.0, 200, 3),
    "cloud:png": Costs(1.0, 100, 30),
    "split:wide": Costs(0.99, 50, 8),
    "split:narrow": Costs(0.95, 1, 20),
    "cloud:jpeg-50": Costs(0.8, 10, 4),
    "cloud:webp-1": Costs(0.6, 1, 4),
}

Arrives = Callable[[int, Costs], bool]
"""Whether the answer of a plan that takes so much would have come in time for a request."""

costs = st.builds(
    Costs,
    agreement=st.sampled_from([0.5, 0.7, 0.8, 0.9, 0.95, 1.0]),
    sent_bytes=st.integers(0, 5),
    device_ms=st.integers(0, 5),
)


def replayed(plan: str, took: Costs, requests: range, arrives: Arrives) -> list[Record]:
    return [record(r, plan=plan, ms=50.0 if arrives(r, took) else 150.0) for r in requests]


def all_asked_for(
    plans: dict[str, Costs], requests: range, arrives: Arrives
) -> dict[str, list[Record]]:
    """What is replayed, in its order."""
    replays: dict[str, list[Record]] = {}
    while (plan := next_replay(plans, replays, requests)) is not None:
        assert plan not in replays
        replays[plan] = replayed(plan, plans[plan], requests, arrives)
    return replays


@given(
    st.lists(costs, min_size=1, max_size=8),
    st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=2),
        min_size=1,
        max_size=5,
    ),
)
def test_what_is_not_replayed_would_not_have_been_taken(
    remote: list[Costs], worst: list[list[tuple[int, int]]]
) -> None:
    """Where more bytes and more work never come sooner, few replays say what all would have."""
    plans = {LOCAL: Costs(0.7, 0, 3)} | {f"p{at}": each for at, each in enumerate(remote)}
    requests = range(len(worst))

    def arrives(request: int, took: Costs) -> bool:
        return any(took.sent_bytes <= b and took.device_ms <= ms for b, ms in worst[request])

    asked = all_asked_for(plans, requests, arrives)
    whole = {
        plan: replayed(plan, took, requests, arrives)
        for plan, took in plans.items()
        if plan != LOCAL
    }
    table = {plan: took.agreement for plan, took in plans.items()}
    alone = [record(r) for r in requests]
    taken, best = (oracle(each, alone, table=table) for each in (asked, whole))
    assert [table[each.plan] for each in taken] == [table[each.plan] for each in best]


def test_what_nothing_undercuts_comes_first_and_what_cannot_arrive_not_at_all() -> None:
    assert list(all_asked_for(PLANS, range(3), lambda *_: False)) == [
        "cloud:raw", "split:narrow", "cloud:jpeg-50",
    ]  # fmt: skip


def test_what_always_arrives_and_agrees_most_is_enough() -> None:
    assert list(all_asked_for(PLANS, range(3), lambda *_: True)) == ["cloud:raw"]


def test_one_request_that_met_a_better_fate_is_enough_to_go_on() -> None:
    def arrives(request: int, took: Costs) -> bool:
        return took.sent_bytes <= (50 if request == 2 else 10)

    assert list(all_asked_for(PLANS, range(3), arrives)) == [
        "cloud:raw", "split:narrow", "cloud:png", "split:wide",
    ]  # fmt: skip


def test_a_replay_that_left_out_a_request_says_nothing_of_it() -> None:
    replays = {"cloud:raw": replayed("cloud:raw", PLANS["cloud:raw"], range(2), lambda *_: True)}
    assert next_replay(PLANS, replays, range(2)) is None
    assert next_replay(PLANS, replays, range(3)) == "cloud:raw"


def test_an_answer_that_another_plan_gave_is_none_of_its_own() -> None:
    fallen = [record(0, plan=LOCAL)]
    assert next_replay(PLANS, {"cloud:raw": fallen}, range(1)) == "split:narrow"


@given(st.lists(costs, min_size=1, max_size=8))
def test_every_plan_is_beaten_by_one_of_the_front(remote: list[Costs]) -> None:
    plans = {f"p{at}": each for at, each in enumerate(remote)}
    kept = front(plans)
    for took in plans.values():
        assert any(
            plans[plan].agreement >= took.agreement and plans[plan].none_more(took) for plan in kept
        )
    for plan in kept:
        others = [plans[other] for other in kept if other != plan]
        assert not any(
            each.agreement >= plans[plan].agreement and each.none_more(plans[plan])
            for each in others
        )


def test_costs_come_from_the_table_and_the_board() -> None:
    rate = Rate(value=0.9, standard_error=0.01, samples=100)
    row = PlanRow(plan="cloud:jpeg-75", agreement=rate, accuracy=None, bytes_p50=900, bytes_p95=1)
    work_ms = {"resize_large": 2.0, "encode:cloud:jpeg-75": 3.0, "light": 50.0}
    assert costs_of([row], work_ms) == {"cloud:jpeg-75": Costs(0.9, 900, pytest.approx(5.0))}

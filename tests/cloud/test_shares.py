"""Shares: what overload makes of them, on a clock that is a number, and through a cloud."""

import asyncio
import dataclasses
import heapq
import logging
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import aiohttp
import grpc
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hybridge.cli.main import main
from hybridge.cloud.config import CloudConfig
from hybridge.cloud.cost import Cost
from hybridge.cloud.job import Job, StageKey
from hybridge.cloud.scheduler import Batch, Capacity, Scheduler
from hybridge.cloud.shares import Fading, Shares
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared.deadline import monotonic
from hybridge.shared.errors import ConfigError, DeadlineRefused, Overloaded, ShareUsedUp
from hybridge.shared.security import Address

from .bundles import random_pixels
from .conftest import run_cloud
from .test_bad_input import gated, inference_of, whole_stage
from .test_metrics import scrape
from .test_service import request_of

A, B = StageKey("a", "1"), StageKey("b", "1")
TEN = Cost(fixed_ms=0.0, per_item_ms=10.0)
THREE = Cost(fixed_ms=0.0, per_item_ms=3.0)
FIFTY = Cost(fixed_ms=0.0, per_item_ms=50.0)
TOGETHER = Cost(fixed_ms=8.0, per_item_ms=1.0, batch_items=8)


class Arrival(NamedTuple):
    at_s: float
    stage: StageKey
    budget_ms: float


@dataclass
class Outcome:
    """What became of a model's requests."""

    asked: int = 0
    accepted: int = 0
    in_time: int = 0
    by_share: int = 0
    ran_ms: float = 0.0
    refused_at: list[int] = field(default_factory=list)
    """Which of all arrivals."""


class NoShares(Shares):
    def check(self, *_: object, **__: object) -> None:
        """As before there were any."""


@dataclass
class Simulation:
    """A scheduler before instances that take exactly as long as is foretold."""

    costs: Mapping[StageKey, Cost]
    shares: Shares
    instances: int = 1
    ahead_s: float = 0.0
    now_s: float = 0.0
    """What ended before this is not in the outcomes."""
    from_s: float = 0.0

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(instances=self.instances, queue_limit=64, shares=self.shares)
        self.scheduler.resize(Capacity(instances=self.instances, ahead_s=self.ahead_s))
        for stage, cost in self.costs.items():
            self.scheduler.add_stage(stage, cost)
        self.outcomes = {stage: Outcome() for stage in self.costs}
        self.running: list[tuple[float, int, Batch]] = []
        self.ahead: list[Batch] = []
        self.wake_s: float | None = None

    def run(self, arrivals: Iterable[Arrival], *, until_s: float = 1e9) -> dict[StageKey, Outcome]:
        for at, arrival in enumerate(sorted(arrivals)):
            self.pass_until(arrival.at_s)
            self.arrive(at, arrival)
        self.pass_until(until_s)
        return self.outcomes

    def pass_until(self, at_s: float) -> None:
        while True:
            ends_s = self.running[0][0] if self.running else float("inf")
            wake_s = float("inf") if self.wake_s is None else self.wake_s
            if min(ends_s, wake_s) > at_s:
                break
            self.now_s = max(self.now_s, min(ends_s, wake_s))
            if ends_s <= wake_s:
                self.finish(heapq.heappop(self.running)[2])
            self.pump()
        self.now_s = at_s

    def arrive(self, at: int, arrival: Arrival) -> None:
        job = Job(
            id=at,
            stage=arrival.stage,
            items=1,
            arrived_s=self.now_s,
            deadline_s=self.now_s + arrival.budget_ms / 1e3,
        )
        outcome = self.outcomes[job.stage]
        counted = self.now_s >= self.from_s
        outcome.asked += counted
        if (batch := self.scheduler.at_once(job, now_s=self.now_s)) is not None:
            self.start(batch)
        else:
            try:
                self.scheduler.submit(job, now_s=self.now_s)
            except (DeadlineRefused, Overloaded) as refusal:
                outcome.by_share += isinstance(refusal, ShareUsedUp)
                outcome.refused_at.append(at)
                return
        outcome.accepted += counted
        self.pump()

    def pump(self) -> None:
        while (step := self.scheduler.next(now_s=self.now_s)).batch is not None:
            assert not step.dropped
            self.start(step.batch)
        assert not step.dropped
        # An alarm never rings too early.
        self.wake_s = None if step.wake_s is None else max(step.wake_s, self.now_s) + 1e-6

    def start(self, batch: Batch) -> None:
        if len(self.running) < self.instances:
            end_s = self.now_s + batch.predicted_ms / 1e3
            heapq.heappush(self.running, (end_s, batch.id, batch))
        else:
            self.ahead.append(batch)

    def finish(self, batch: Batch) -> None:
        took_ms = self.scheduler.finish(batch, now_s=self.now_s, items=len(batch.jobs))
        outcome = self.outcomes[batch.stage]
        if self.now_s >= self.from_s:
            outcome.ran_ms += took_ms
            outcome.in_time += sum(self.now_s <= job.deadline_s + 1e-9 for job in batch.jobs)
        if self.ahead:
            self.start(self.ahead.pop())


class Asks(NamedTuple):
    """How a model is asked for: Poisson arrivals, a budget or a range of them."""

    cost: Cost
    per_s: float
    budget_ms: float | tuple[float, float]


SECONDS, WARM_S = 14.0, 4.0


def overload(
    asks: Mapping[str, Asks], *, shares: Shares, instances: int = 1, ahead_s: float = 0.01
) -> dict[str, Outcome]:
    """What becomes of a flood, once it has lasted a while."""
    drawn, arrivals, costs = random.Random(7), list[Arrival](), dict[StageKey, Cost]()
    for name, (cost, per_s, budget_ms) in asks.items():
        stage, at_s = StageKey(name, "1"), 0.0
        costs[stage] = cost
        least, most = budget_ms if isinstance(budget_ms, tuple) else (budget_ms, budget_ms)
        while (at_s := at_s + drawn.expovariate(per_s)) < SECONDS:
            arrivals.append(Arrival(at_s, stage, drawn.uniform(least, most)))
    simulation = Simulation(costs, shares, instances=instances, ahead_s=ahead_s, from_s=WARM_S)
    outcomes = simulation.run(arrivals, until_s=SECONDS)
    return {stage.model: outcome for stage, outcome in outcomes.items()}


def used(outcome: Outcome, *, instances: int = 1) -> float:
    """The part of all instances' time that a model had."""
    return outcome.ran_ms / ((SECONDS - WARM_S) * 1e3 * instances)


@pytest.mark.parametrize(
    ("flood", "budget_ms", "kept"),
    [
        (Asks(TEN, 300, 100), 100, 0.99),
        (Asks(TEN, 300, (20, 200)), (30, 200), 0.97),
        (Asks(TEN, 300, 1000), 100, 0.99),
        (Asks(TEN, 300, 30), 30, 0.85),  # where alone it has 0.98
        (Asks(TOGETHER, 1200, 100), 60, 0.85),
        (Asks(FIFTY, 60, 400), 110, 0.85),
    ],
)
def test_a_flood_leaves_the_others_what_they_ask_below_their_share(
    flood: Asks, budget_ms: float | tuple[float, float], kept: float
) -> None:
    modest = Asks(TEN, 20, budget_ms)
    with_it = overload({"a": flood, "b": modest}, shares=Shares())
    assert with_it["b"].accepted >= kept * with_it["b"].asked
    assert with_it["b"].in_time >= with_it["b"].accepted - 2  # who still waits at the end
    assert used(with_it["a"]) + used(with_it["b"]) > 0.94
    before = overload({"a": flood, "b": modest}, shares=NoShares())
    assert before["b"].accepted < 0.6 * before["b"].asked or flood.budget_ms == 1000


@pytest.mark.parametrize(
    ("asks", "weights", "instances"),
    [
        ({"a": Asks(TEN, 300, 100), "b": Asks(TEN, 300, 100)}, {}, 1),
        ({"a": Asks(TEN, 900, 100), "b": Asks(TEN, 150, 100)}, {}, 1),
        ({"a": Asks(TEN, 300, 100), "b": Asks(TEN, 300, 100)}, {"a": 3.0}, 1),
        ({"a": Asks(TEN, 300, 2000), "b": Asks(TEN, 300, 50)}, {}, 1),  # the queue's bound
        ({"a": Asks(TEN, 600, 25), "b": Asks(TEN, 150, 25)}, {}, 1),  # no room to wait
        ({"a": Asks(FIFTY, 60, 300), "b": Asks(THREE, 700, 100)}, {}, 1),
        ({"a": Asks(TOGETHER, 1000, 100), "b": Asks(TEN, 300, 100)}, {}, 1),
        (
            {"a": Asks(TEN, 500, 100), "b": Asks(FIFTY, 100, 400), "c": Asks(THREE, 1000, 60)},
            {"a": 3.0, "b": 2.0},
            2,
        ),
    ],
)
def test_floods_divide_the_run_time_by_their_weights(
    asks: dict[str, Asks], weights: dict[str, float], instances: int
) -> None:
    outcomes = overload(asks, shares=Shares(weights), instances=instances)
    assert sum(used(each, instances=instances) for each in outcomes.values()) > 0.95
    all_weights = sum(weights.get(name, 1.0) for name in asks)
    for name, outcome in outcomes.items():
        due = weights.get(name, 1.0) / all_weights
        assert used(outcome, instances=instances) == pytest.approx(due, abs=0.05)


def test_one_that_asks_seldom_is_not_refused_for_it() -> None:
    flood = [Arrival(at / 300, A, 100.0) for at in range(300 * 90)]
    seldom = [Arrival(9.0 * at + 1.0, B, 30.0) for at in range(10)]
    outcomes = Simulation({A: TEN, B: TEN}, Shares()).run([*flood, *seldom])
    assert outcomes[B].refused_at == [301]  # the first, of whom nothing was known
    assert outcomes[A].ran_ms > 0.97 * 90e3


ARRIVALS = st.lists(
    st.tuples(st.floats(0.0, 40.0), st.sampled_from([A, B]), st.floats(5.0, 200.0)),
    min_size=1,
    max_size=80,
)
"""Milliseconds after the one before, whose, its budget."""


def arriving(drawn: list[tuple[float, StageKey, float]], *, squeeze: float = 1.0) -> list[Arrival]:
    at_s, arrivals = 0.0, list[Arrival]()
    for gap_ms, stage, budget_ms in drawn:
        at_s += gap_ms * squeeze / 1e3
        arrivals.append(Arrival(at_s, stage, budget_ms))
    return arrivals


COSTS = {A: TEN, B: THREE}
INSTANCES = st.integers(1, 3)


@given(drawn=ARRIVALS, instances=INSTANCES)
def test_nobody_is_refused_for_shares_before_anybody_was_for_time(
    drawn: list[tuple[float, StageKey, float]], instances: int
) -> None:
    """So nothing changes where nothing is refused."""
    arrivals = arriving(drawn, squeeze=0.25)
    without = Simulation(COSTS, NoShares(), instances=instances).run(arrivals)
    refused = {at for each in without.values() for at in each.refused_at}
    with_them = Simulation(COSTS, Shares(), instances=instances).run(arrivals)
    differ = refused ^ {at for each in with_them.values() for at in each.refused_at}
    assert not differ or min(refused) < min(differ)


@given(drawn=ARRIVALS, instances=INSTANCES)
def test_one_alone_is_never_refused_for_shares(
    drawn: list[tuple[float, StageKey, float]], instances: int
) -> None:
    arrivals = [each._replace(stage=A) for each in arriving(drawn, squeeze=0.1)]
    alone = {A: TEN}
    with_them = Simulation(alone, Shares({"a": 0.1, "b": 9.0}), instances=instances).run(arrivals)
    assert with_them == Simulation(alone, NoShares(), instances=instances).run(arrivals)
    assume(with_them[A].refused_at)


@given(drawn=ARRIVALS, weight=st.floats(0.1, 10.0))
def test_what_is_accepted_beside_shares_is_in_time(
    drawn: list[tuple[float, StageKey, float]], weight: float
) -> None:
    arrivals = [*arriving(drawn * 3, squeeze=0.1)]
    outcomes = Simulation(COSTS, Shares({"a": weight})).run(arrivals)
    for outcome in outcomes.values():
        assert outcome.in_time == outcome.accepted == outcome.asked - len(outcome.refused_at)


MILLISECONDS = st.floats(0.0, 1e4)


@given(
    used_ms=MILLISECONDS,
    others_ms=MILLISECONDS,
    vain_ms=MILLISECONDS,
    booked=st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 500.0)), max_size=8),
    budget_ms=st.floats(0.0, 5e3),
    weight=st.floats(0.1, 10.0),
    instances=INSTANCES,
)
def test_who_is_refused_has_had_more_than_its_share(
    used_ms: float,
    others_ms: float,
    vain_ms: float,
    booked: list[tuple[float, float]],
    budget_ms: float,
    weight: float,
    instances: int,
) -> None:
    shares = Shares({"a": weight})
    for model, ran_ms in (("a", used_ms), ("b", others_ms)):
        shares.asked(model, now_s=0.0)
        shares.used(model, ran_ms, now_s=0.0)
    shares.refused("b", vain_ms, now_s=0.0)
    try:
        shares.check(
            "a",
            needs_ms=10.0,
            deadline_s=budget_ms / 1e3,
            booked=booked,
            instances=instances,
            now_s=0.0,
        )
    except ShareUsedUp:
        share_ms = weight / (weight + 1) * instances * 2e3
        assert used_ms + 10.0 + sum(each for _, each in booked) > share_ms
        assert vain_ms > 0


def check(shares: Shares, *, needs_ms: float, now_s: float = 0.0) -> None:
    shares.check(
        "a", needs_ms=needs_ms, deadline_s=now_s + 1.0, booked=(), instances=1, now_s=now_s
    )


def flooded(*, a_ms: float = 1900.0, b_ms: float = 0.0, vain_ms: float = 300.0) -> Shares:
    """Of 2,000 ms a has used `a_ms`, b has used `b_ms`; a has asked for `vain_ms` in vain."""
    shares = Shares()
    for model, ran_ms in (("a", a_ms), ("b", b_ms)):
        shares.asked(model, now_s=0.0)
        shares.used(model, ran_ms, now_s=0.0)
    shares.refused("a", vain_ms, now_s=0.0)
    return shares


def test_of_the_time_that_is_left_a_share_may_be_booked() -> None:
    check(flooded(), needs_ms=499.0)
    with pytest.raises(ShareUsedUp, match=r"share, 50% .*: of 501\.0 ms it may have 500\.0"):
        check(flooded(), needs_ms=501.0)


def test_nothing_may_be_booked_while_others_want_their_share() -> None:
    shares = flooded()
    shares.refused("b", 200.0, now_s=0.0)
    with pytest.raises(ShareUsedUp, match="and others wait for theirs"):
        check(shares, needs_ms=1.0)
    shares.refused("a", 900.0, now_s=1.1)
    check(shares, needs_ms=1.0, now_s=1.1)  # b has not been refused any more
    shares = flooded()
    shares.refused("b", 200.0, now_s=0.0)
    shares.used("b", 960.0, now_s=0.0)  # which it now has had
    check(shares, needs_ms=1.0)


def test_what_was_refused_and_who_asked_is_forgotten() -> None:
    check(flooded(vain_ms=100.0), needs_ms=900.0)
    with pytest.raises(ShareUsedUp):
        check(flooded(), needs_ms=900.0)
    with pytest.raises(ShareUsedUp):
        check(flooded(vain_ms=1e9), needs_ms=900.0, now_s=0.9)
    check(flooded(vain_ms=1e9), needs_ms=900.0, now_s=1.1)
    shares = flooded(a_ms=1e9)
    shares.refused("a", 300.0, now_s=29.0)
    with pytest.raises(ShareUsedUp):
        check(shares, needs_ms=900.0, now_s=29.0)
    shares.asked("a", now_s=31.0)
    shares.refused("a", 300.0, now_s=31.0)
    check(shares, needs_ms=900.0, now_s=31.0)  # alone


def test_a_sum_that_fades_knows_no_way_back() -> None:
    ran = Fading()
    ran.add(8.0, now_s=5.0)
    assert ran.at(4.0) == 8.0
    assert ran.at(7.0) == pytest.approx(8.0 / np.e)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_that_is_none(config: CloudConfig, weight: float) -> None:
    with pytest.raises(ConfigError, match="share of tiny must be above 0"):
        dataclasses.replace(config, shares={"tiny": weight})


@pytest.mark.parametrize("given", ["tiny=heavy", "tiny", "tiny=0", "tiny=nan"])
def test_a_share_that_is_none_is_told_on_the_command_line(
    bundles: Path, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    assert main(["cloud", "--bundles", str(bundles), "--share", given]) == 78
    assert "share" in capsys.readouterr().err


async def test_a_share_of_what_is_not_served_is_told(
    config: CloudConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with run_cloud(dataclasses.replace(config, shares={"tiny": 2.0, "tyni": 3.0})):
            pass
    assert [each.getMessage() for each in caplog.records if "share" in each.getMessage()] == [
        "a share is kept for tyni, which is not served"
    ]


async def test_through_grpc_a_share_that_is_used_up_is_told_and_counted(
    config: CloudConfig,
) -> None:
    one = dataclasses.replace(
        config, instances=1, shares={"other": 3.0}, metrics=Address("127.0.0.1", 0)
    )
    request = request_of("pixels", random_pixels(0), latency_budget_ms=50_000)
    async with run_cloud(one) as cloud, aiohttp.ClientSession() as session:
        shares = inference_of(cloud).worker._scheduler.shares
        for model in ("tiny", "other"):
            shares.asked(model, now_s=monotonic())
        shares.used("tiny", 1e30, now_s=monotonic())
        shares.refused("other", 1e30, now_s=monotonic())
        await cloud.stub.ModelInfer(request)  # an instance is free: nobody is in the way
        async with gated(whole_stage(cloud)) as gate:
            first = asyncio.ensure_future(cloud.stub.ModelInfer(request))
            assert await asyncio.to_thread(gate.entered.acquire, timeout=30)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await cloud.stub.ModelInfer(request)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "tiny has used up its share, 25% of what can be computed, and others wait" in (
                caught.value.details() or ""
            )
            gate.allowed.set()
            await first
        figures = await scrape(cloud, session)
        assert figures["hybridge_refusals_total{model=tiny,reason=share,version=1}"] == 1
        assert figures["hybridge_deadline_misses_total{model=tiny,version=1}"] == 0
        told = await cloud.stub.ModelStatistics(pb.ModelStatisticsRequest(name="tiny"))
        (stats,) = told.model_stats
        assert (stats.inference_stats.success.count, stats.inference_stats.fail.count) == (2, 1)

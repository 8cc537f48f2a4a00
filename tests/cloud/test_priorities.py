"""Priorities: what a request may ask, what the scheduler makes of it, and both through a cloud."""

import asyncio
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hybridge.cloud.config import CloudConfig
from hybridge.cloud.cost import Cost
from hybridge.cloud.job import Job, StageKey
from hybridge.cloud.priorities import Priorities
from hybridge.cloud.scheduler import Batch
from hybridge.cloud.stage import Stage
from hybridge.cloud.triton_config import check_config, priorities_of, read_config
from hybridge.cloud.work import Answer, Execution, Work
from hybridge.shared import oip
from hybridge.shared.errors import BundleError, DeadlineRefused, Overloaded, RequestError
from hybridge.shared.security import Address

from .bundles import random_pixels
from .conftest import Cloud, run_cloud
from .named_models import write_config
from .test_bad_input import gated, inference_of, whole_stage
from .test_rest import infer_json, url_of
from .test_scheduler import BATCHED, COSTS, LIMIT, PLAIN, Bench
from .test_service import request_of

OTHER = StageKey("other", "1")
TOGETHER = StageKey("together", "1")
EXACT = {
    PLAIN: Cost(fixed_ms=0.0, per_item_ms=10.0),
    OTHER: Cost(fixed_ms=3.0, per_item_ms=4.0),
}
AT_ONCE = {**EXACT, TOGETHER: Cost(fixed_ms=8.0, per_item_ms=1.0, batch_items=4, most_linger_ms=0)}


@pytest.mark.parametrize(
    ("asked", "rank"), [(None, 0), (0, 0), (1, -4), (5, 0), (10, 5), ("2", -3), (3.0, -2)]
)
def test_ranks(asked: oip.Value | None, rank: int) -> None:
    assert Priorities().rank({} if asked is None else {"priority": asked}) == rank


@pytest.mark.parametrize(
    "asked", [-1, 11, 1.5, "1.5", "first", "", True, math.nan, math.inf, 2**64 - 1, 10**400]
)
def test_what_is_no_priority(asked: oip.Value) -> None:
    with pytest.raises(RequestError, match="parameter priority"):
        Priorities().rank({"priority": asked})


def test_the_levels_of_a_triton_model(tmp_path: Path) -> None:
    text = "dynamic_batching { priority_levels: 3 default_priority_level: 2 }"
    write_config(tmp_path / "model", text)
    priorities = priorities_of(read_config(tmp_path / "model"))
    assert [priorities.rank({"priority": level}) for level in range(4)] == [0, -1, 0, 1]
    with pytest.raises(RequestError, match=r"from 1 .* to 3, or 0 for the default, 2"):
        priorities.rank({"priority": 4})


@pytest.mark.parametrize("default", ["", "default_priority_level: 3"])
def test_levels_without_a_default_among_them(tmp_path: Path, default: str) -> None:
    write_config(tmp_path / "model", f"dynamic_batching {{ priority_levels: 2 {default} }}")
    with pytest.raises(BundleError, match="priority_levels: the default level"):
        check_config(read_config(tmp_path / "model"))


def bench_of(costs: dict[StageKey, Cost], *, instances: int = 1, limit: int = 1000) -> Bench:
    bench = Bench(instances=instances, limit=limit)
    for stage in costs.keys() - COSTS.keys():
        bench.scheduler.add_stage(stage, costs[stage])
    return bench


def test_a_batch_holds_several_priorities_and_all_in_it_are_in_time() -> None:
    bench = Bench()
    behind = bench.submit(BATCHED, budget_ms=10.5, rank=1)
    first = bench.submit(BATCHED, rank=-1)
    last = bench.submit(BATCHED, rank=2)
    assert bench.batch().jobs == (first, behind)  # three would take 11 ms
    assert bench.scheduler.cancel(last)


def test_who_goes_behind_is_not_in_the_way_of_an_admission() -> None:
    bench = Bench()
    for _ in range(3):
        bench.submit(budget_ms=31, rank=1)
    with pytest.raises(DeadlineRefused):
        bench.submit(budget_ms=31, rank=1)
    assert bench.scheduler.forecast_ms(now_s=0.0, rank=1) == pytest.approx(30.0)
    assert bench.scheduler.forecast_ms(now_s=0.0) == 0.0
    first = bench.submit(budget_ms=11)
    assert bench.batch().jobs == (first,)


def test_an_accepted_deadline_behind_a_loose_one_of_higher_priority_is_kept() -> None:
    bench = Bench()
    bench.submit(PLAIN, rank=-1)
    bench.submit(BATCHED, rank=-1)
    bench.submit(PLAIN, budget_ms=29.5)  # after 10 and 9 ms; a second in the batch makes it 10
    with pytest.raises(DeadlineRefused, match="accepted requests would be late"):
        bench.submit(BATCHED)


def test_a_full_queue_has_room_for_what_goes_before_all_in_it() -> None:
    bench = Bench()
    for _ in range(LIMIT):
        bench.submit()
    for rank in (0, 1):
        with pytest.raises(Overloaded):
            bench.submit(rank=rank)
    bench.submit(rank=-1)
    assert bench.scheduler.queued("plain") == LIMIT + 1


def test_a_stage_whose_first_is_hopeless_does_not_go_before_another() -> None:
    bench = bench_of(EXACT)
    gone = bench.submit(PLAIN, budget_ms=20, rank=-1)
    bench.submit(PLAIN, rank=1)
    middle = bench.submit(OTHER, rank=0)
    step = bench.scheduler.next(now_s=0.015)
    assert step.dropped == (gone,)
    assert step.batch is not None
    assert step.batch.jobs == (middle,)


ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from(sorted(AT_ONCE)),
        st.integers(-2, 2),  # rank
        st.floats(5.0, 200.0),  # budget, ms
        st.integers(1, 4),  # items
        st.floats(0.0, 15.0),  # ms after the one before
    ),
    min_size=2,
    max_size=25,
)


@given(arrivals=ARRIVALS, instances=st.integers(1, 2))
def test_nobody_waits_behind_a_lower_priority_or_a_later_deadline(
    arrivals: list[tuple[StageKey, int, float, int, float]], instances: int
) -> None:
    """And all that were admitted end: computed in time, or dropped for who went before them."""
    bench = bench_of(AT_ONCE, instances=instances)
    waiting: dict[int, Job] = {}
    running: list[tuple[float, int]] = []
    batches: dict[int, Batch] = {}
    coming, now_s = [*arrivals], 0.0
    while True:
        while (step := bench.scheduler.next(now_s=now_s)).batch or step.dropped:
            for job in step.dropped:
                assert waiting.pop(job.id) == job
            if (batch := step.batch) is None:
                break
            for job in batch.jobs:
                assert waiting.pop(job.id) == job
                assert batch.started_s + batch.predicted_ms / 1e3 <= job.deadline_s
            ahead = [job for job in waiting.values() if job.order < batch.jobs[0].order]
            assert not ahead
            batches[batch.id] = batch
            running.append((now_s + batch.predicted_ms / 1e3, batch.id))
        if coming and (not running or now_s + coming[0][4] / 1e3 < min(running)[0]):
            stage, rank, budget_ms, items, gap_ms = coming.pop(0)
            now_s += gap_ms / 1e3
            try:
                job = bench.submit(stage, budget_ms=budget_ms, now_s=now_s, items=items, rank=rank)
            except DeadlineRefused:
                continue
            waiting[job.id] = job
        elif running:
            end_s, which = min(running)
            running.remove((end_s, which))
            now_s = end_s
            bench.finish(batches.pop(which), now_s)
        else:
            break
    assert not waiting


WAITING = st.lists(
    st.tuples(st.sampled_from(sorted(EXACT)), st.floats(10.0, 200.0), st.integers(1, 3)),
    min_size=1,
    max_size=12,
)


@given(before=WAITING, after=WAITING, instances=st.integers(1, 3))
def test_what_comes_later_and_goes_behind_changes_no_forecast(
    before: list[tuple[StageKey, float, int]],
    after: list[tuple[StageKey, float, int]],
    instances: int,
) -> None:
    bench = bench_of(EXACT, instances=instances)

    def submit(jobs: list[tuple[StageKey, float, int]], rank: int) -> int:
        accepted = 0
        for stage, budget_ms, items in jobs:
            try:
                bench.submit(stage, budget_ms=budget_ms, items=items, rank=rank)
            except DeadlineRefused:
                continue
            accepted += 1
        return accepted

    assume(submit(before, 0))
    forecast_ms = bench.scheduler.forecast_ms(now_s=0.0)
    done_s = bench.scheduler._play(0.0)
    assume(submit(after, 1))
    later_s = bench.scheduler._play(0.0)
    assert {each: later_s[each] for each in done_s} == done_s
    assert bench.scheduler.forecast_ms(now_s=0.0) == forecast_ms


def recorded_ranks(cloud: Cloud) -> list[int]:
    """Those of what is computed from now on, in the order of its coming."""
    worker, ranks = inference_of(cloud).worker, list[int]()
    run = worker.run

    async def recording(stage: Stage, *, rank: int = 0, **more: Any) -> Answer:
        ranks.append(rank)
        return await run(stage, rank=rank, **more)

    worker.run = recording  # type: ignore[method-assign,assignment]
    return ranks


async def test_through_grpc_the_higher_priority_is_computed_first(config: CloudConfig) -> None:
    one = dataclasses.replace(config, instances=1, max_batch=1)
    async with run_cloud(one) as cloud, gated(whole_stage(cloud)) as gate:
        worker, order, queued = inference_of(cloud).worker, list[int](), asyncio.Semaphore(0)
        execute, submit = worker.executor.run, worker._scheduler.submit

        def run(works: Sequence[Work], stage: Stage) -> asyncio.Future[Execution]:
            order.extend(work.job.rank for work in works)
            return execute(works, stage)

        def enqueue(job: Job, *, now_s: float) -> None:
            submit(job, now_s=now_s)
            queued.release()

        def call(priority: int) -> asyncio.Task[Any]:
            request = request_of(
                "pixels", random_pixels(0), latency_budget_ms=50_000, priority=priority
            )
            return asyncio.ensure_future(cloud.stub.ModelInfer(request))

        calls = [call(0)]
        assert await asyncio.to_thread(gate.entered.acquire, timeout=30)
        worker.executor.run = run  # type: ignore[method-assign]
        worker._scheduler.submit = enqueue  # type: ignore[method-assign]
        for priority in (9, 0, 1):
            calls.append(call(priority))
            await asyncio.wait_for(queued.acquire(), 60)
        gate.allowed.set()
        await asyncio.gather(*calls)
        assert order == [-4, 0, 4]


async def test_a_bad_priority_is_told_over_grpc_and_http(config: CloudConfig) -> None:
    both = dataclasses.replace(config, http=Address("127.0.0.1", 0))
    words = r"parameter priority is 11; it must be a whole number from 1 \(goes first\) to 10"
    async with run_cloud(both) as cloud, aiohttp.ClientSession() as session:
        with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
            await cloud.stub.ModelInfer(request_of("pixels", random_pixels(0), priority=11))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        url = url_of(cloud, "/v2/models/tiny/infer")
        for priority, status in ((1, 200), (11, 400), (-1, 400), (10**30, 400), ("high", 400)):
            body = json.dumps(infer_json(priority=priority))
            async with session.post(url, data=body) as response:
                assert response.status == status
                assert status == 200 or "parameter priority" in await response.text()

"""Real processes beneath a worker: they die, hang and come back."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from hybridge.cloud.cost import Cost
from hybridge.cloud.executors.parcel import Parcel
from hybridge.cloud.executors.pool import ReplicaPool, _with_hop
from hybridge.cloud.executors.process import COMMAND, ProcessReplica
from hybridge.cloud.executors.scaling import Bounds
from hybridge.cloud.job import StageKey
from hybridge.cloud.stage import Stage
from hybridge.cloud.work import Answer
from hybridge.cloud.worker import Worker
from hybridge.shared.deadline import Deadline, monotonic
from hybridge.shared.errors import (
    ConfigError,
    DeadlineRefused,
    DeadlineUnmet,
    InstanceLost,
    ModelFault,
)

from ..bundles import random_pixels
from .conftest import pids, signal_all, stop_all, until

DIES = (sys.executable, "-c", "raise SystemExit(3)")


@asynccontextmanager
async def working(
    *,
    processes: int = 1,
    bounds: Bounds | None = None,
    command: tuple[str, ...] = COMMAND,
    start_s: float = 1.0,
    hung_s: float = 60.0,
    slots: int = 1,
    kind: type[ProcessReplica] = ProcessReplica,
) -> AsyncIterator[tuple[Worker, ReplicaPool]]:
    """A worker above processes of so many instances each."""
    pool = ReplicaPool(
        lambda name: kind(name, slots=slots, command=command),
        bounds=bounds or Bounds(least=processes, most=processes),
        slots=slots,
        start_s=start_s,
        hop_ms=1.0,
        hung_s=hung_s,
    )
    worker = Worker(executor=pool, queue_limit=10)
    try:
        await worker.start()
        yield worker, pool
    finally:
        await worker.close()


def submit(
    worker: Worker, stage: Stage, seed: int, *, budget_ms: float = 3_600_000.0
) -> asyncio.Task[Answer]:
    load = partial(np.asarray, random_pixels(seed)[None])
    deadline = Deadline.after_ms(budget_ms, now_s=monotonic())
    return asyncio.ensure_future(worker.run(stage, load=load, items=1, deadline=deadline))


async def check_serves(worker: Worker, stage: Stage) -> None:
    assert (await submit(worker, stage, 0)).probabilities.shape == (1, 5)


async def test_a_batch_that_dies_with_its_process_is_computed_again(stage: Stage) -> None:
    here = [stage.run(random_pixels(seed)[None], {}).probabilities for seed in range(4)]
    async with working(processes=2) as (worker, pool):
        await worker.open_stage(stage)
        assert pool.staff is not None
        assert pool.staff.ready == 2
        await stop_all(pool)
        calls = [submit(worker, stage, seed) for seed in range(4)]
        await until(lambda: worker.running == 2)
        signal_all(pool, signal.SIGKILL)
        answers = await asyncio.gather(*calls)
        for answer, expected in zip(answers, here, strict=True):
            np.testing.assert_allclose(answer.probabilities, expected, rtol=1e-5)
        assert pool.staff.deaths == 2
        await until(lambda: pool.capacity.instances == 2)


async def test_without_time_for_another_try_it_is_said_at_once(stage: Stage) -> None:
    async with working() as (worker, pool):
        await worker.open_stage(stage)
        await stop_all(pool)
        call = submit(worker, stage, 0)
        await until(lambda: worker.running == 1)
        pool._start_s = 7_200.0  # so long does another process seem to take
        signal_all(pool, signal.SIGKILL)
        with pytest.raises(InstanceLost, match="ended by SIGKILL; for another try, forecast"):
            await call
        await until(lambda: pool.capacity.instances == 1)
        await check_serves(worker, stage)


async def test_a_process_that_does_not_come_back_is_replaced(stage: Stage) -> None:
    async with working(hung_s=0.0) as (worker, pool):
        await worker.open_stage(stage)
        stopped = pids(pool)
        await stop_all(pool)
        with pytest.raises(DeadlineUnmet):
            await submit(worker, stage, 0, budget_ms=2_000.0)
        await until(lambda: pids(pool) not in ([], stopped))
        await check_serves(worker, stage)


async def test_a_stage_that_kills_its_process_is_refused(stage: Stage) -> None:
    deadly = Stage(
        key=StageKey("deadly", "1"),
        contract=stage.contract,
        output=stage.output,
        classes=stage.classes,
        max_batch=1,
        open=partial(os._exit, 7),
    )
    deadly._cost = Cost(fixed_ms=1.0, per_item_ms=0.0)  # it did no harm here
    async with working() as (worker, pool):
        await worker.open_stage(stage)
        with pytest.raises(ModelFault, match=r"a worker died of loading it: .* exit code 7"):
            await worker.open_stage(deadly)
        await until(lambda: pool.capacity.instances == 1)
        await check_serves(worker, stage)


async def test_a_stage_that_cannot_be_handed_over_says_so(stage: Stage) -> None:
    stage.open = lambda: None  # type: ignore[assignment, return-value]
    async with working(bounds=Bounds(least=0, most=1)) as (worker, _):
        with pytest.raises(ConfigError, match="tiny/1/whole cannot be handed to workers"):
            await worker.open_stage(stage)


async def test_what_cannot_start_is_given_up_with_a_reason() -> None:
    with pytest.raises(ConfigError, match="failed to start 5 times: it ended with exit code 3"):
        async with working(command=DIES):
            pass


async def test_what_does_not_exist_is_given_up_with_a_reason() -> None:
    with pytest.raises(ConfigError, match=r"it cannot be started: .* '/no/such/python'"):
        async with working(command=("/no/such/python",)):
            pass


async def test_a_stage_is_forgotten_everywhere(stage: Stage) -> None:
    async with working() as (worker, pool):
        await worker.open_stage(stage)
        await check_serves(worker, stage)
        await worker.remove_stage(stage)
        assert pool._opened == {}
        assert pool._seats[0].places == set()


class Counting(ProcessReplica):
    """Knows how many orders were under way at a time."""

    now = most = 0

    async def call(self, order: Parcel) -> Parcel:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await super().call(order)
        finally:
            self.now -= 1


async def test_a_stage_is_forgotten_once_nothing_runs_there(stage: Stage) -> None:
    async with working(slots=2, kind=Counting) as (worker, pool):
        await worker.open_stage(stage)
        replica = pool._seats[0].replica
        assert isinstance(replica, Counting)
        await stop_all(pool)
        left = submit(worker, stage, 0)
        await until(lambda: replica.now == 1)
        left.cancel()
        removing = asyncio.ensure_future(worker.remove_stage(stage))
        await until(lambda: pool._opened == {})
        assert (replica.now, replica.most) == (1, 1)
        signal_all(pool, signal.SIGCONT)
        await removing
        assert replica.most == 1
        await worker.open_stage(stage)
        await check_serves(worker, stage)
        assert pool._deaths == 0


async def test_what_is_refused_for_want_of_a_process_starts_one(stage: Stage) -> None:
    bounds = Bounds(least=0, most=2, idle_s=3_600.0)
    async with working(bounds=bounds, start_s=60.0) as (worker, pool):
        await worker.open_stage(stage)
        assert pids(pool) == []
        with pytest.raises(DeadlineRefused, match=r"forecast 60000\.0 ms of waiting"):
            await submit(worker, stage, 0, budget_ms=1_000.0)
        await until(lambda: len(pids(pool)) == 1)
        await check_serves(worker, stage)
        pool._bounds = replace(bounds, idle_s=0.01)
        await until(lambda: not pool._seats)
        assert pool.staff is not None
        assert pool.staff.deaths == 0


@pytest.mark.parametrize("crowd", [1, 2])
def test_the_way_to_a_worker_is_shared_by_two(stage: Stage, crowd: int) -> None:
    cost = Cost(fixed_ms=0.0, per_item_ms=10.0, crowd_items=crowd)
    there = _with_hop(stage, cost, one_ms=1.0, full_ms=1.0)
    assert there.predict_ms(1) == pytest.approx(11.0)
    assert there.crowd_items == crowd

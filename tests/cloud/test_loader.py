"""The loader with a real worker and graphs that load when they are allowed to."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import numpy as np
import pytest

from hybridge.cloud.backend import Backend, Result
from hybridge.cloud.cost import Cost
from hybridge.cloud.executors.threads import Threads
from hybridge.cloud.job import StageKey
from hybridge.cloud.loader import Loader
from hybridge.cloud.residence import Limits, Reason
from hybridge.cloud.stage import Stage
from hybridge.cloud.statistics import Statistics
from hybridge.cloud.work import Answer
from hybridge.cloud.worker import Worker
from hybridge.shared.contract import Contract
from hybridge.shared.deadline import Deadline, monotonic
from hybridge.shared.errors import (
    BundleError,
    DeadlineRefused,
    DeadlineUnmet,
    ModelFault,
    Overloaded,
    UnknownModel,
)
from hybridge.shared.manifest import OutputKind
from hybridge.shared.side import Tensors
from hybridge.shared.tensor import Array

MIB = 1 << 20


class Echo(Backend):
    """Gives its input back."""

    device = "cpu"

    def run(self, batch: Array, sides: Tensors) -> Result:
        return Result(batch.astype(np.float32))


class Disk:
    """Where models are loaded from: slow, broken or counted as a test wants it."""

    def __init__(self) -> None:
        self.allowed = threading.Event()
        self.allowed.set()
        self.entered = threading.Semaphore(0)
        self.opened: list[str] = []
        self.broken: dict[str, Exception] = {}

    def stage(self, name: str, *, cut: str = "", own_bytes: int = 40 * MIB) -> Stage:
        def open_backend() -> Backend:
            self.opened.append(name)
            self.entered.release()
            assert self.allowed.wait(60)
            if name in self.broken:
                raise self.broken[name]
            return Echo()

        return Stage(
            key=StageKey(name, "1", cut),
            contract=Contract(tensor="x", shape=(2,), dtype="UINT8", model="none"),
            output=OutputKind.PROBABILITIES,
            classes=2,
            max_batch=1,
            open=open_backend,
            own_bytes=own_bytes,
        )

    def measured(self, name: str, cost_ms: float = 1.0) -> Stage:
        """One whose cost is known from an earlier load."""
        stage = self.stage(name)
        stage._cost = Cost(fixed_ms=0.0, per_item_ms=cost_ms)
        return stage


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.allowed.set()


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker(executor=Threads(1), queue_limit=100)
    yield worker
    await worker.close()


class Bench:
    """A loader, and calls to what it has."""

    def __init__(self, worker: Worker, limits: Limits, *stages: Stage) -> None:
        self.worker = worker
        self.statistics = Statistics()
        self.loader = Loader(worker, limits=limits, statistics=self.statistics)
        for stage in stages:
            self.statistics.add(stage.key.model, stage.key.version)
        self.loader.add(stages)

    async def call(self, stage: Stage, *, budget_ms: float = 60_000.0, rank: int = 0) -> Answer:
        deadline = Deadline.after_ms(budget_ms, now_s=monotonic())
        with await self.loader.ready(stage, deadline=deadline, rank=rank):
            return await self.worker.run(
                stage,
                load=lambda: np.full((1, 2), 3, np.uint8),
                items=1,
                deadline=deadline,
                rank=rank,
            )

    def resident(self) -> set[str]:
        return {name for (name, _), _ in self.loader.residence.resident()}

    async def until(self, resident: set[str]) -> None:
        """Returns once these models are in memory and no others."""
        loader = self.loader
        async with asyncio.timeout(60):
            while True:
                if busy := [*loader._loading.values(), *loader._evicting.values()]:
                    await asyncio.wait(busy)
                elif self.resident() == resident:
                    return
                else:  # a timer is to come
                    await asyncio.sleep(0.001)


async def entered(disk: Disk) -> None:
    assert await asyncio.to_thread(disk.entered.acquire, timeout=60)


async def test_first_calls_at_once_load_once(worker: Worker, disk: Disk) -> None:
    tail = disk.stage("a", cut="cut")
    bench = Bench(worker, Limits(), tail)
    disk.allowed.clear()
    with pytest.raises(DeadlineUnmet, match=r"a/1/cut is still being loaded"):
        await bench.call(tail, budget_ms=30.0)
    calls = [asyncio.ensure_future(bench.call(tail)) for _ in range(3)]
    disk.allowed.set()
    for answer in await asyncio.gather(*calls):
        assert answer.probabilities.tolist() == [[3, 3]]
    assert disk.opened == ["a"]
    assert bench.statistics.of("a", "1").loads.count == 1
    await bench.loader.close()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (ModelFault("no such graph"), "no such graph"),
        (OSError("disk is gone"), "a/1/whole cannot be loaded: OSError: disk is gone"),
    ],
)
async def test_what_cannot_be_loaded_says_so_and_is_tried_again(
    worker: Worker, disk: Disk, fault: Exception, said: str
) -> None:
    broken, good = disk.stage("a"), disk.stage("b")
    disk.broken["a"] = fault
    bench = Bench(worker, Limits(), broken, good)
    bench.loader.start([broken, good])
    await bench.loader.finished()
    assert bench.resident() == {"b"}
    for _ in range(3):
        with pytest.raises(ModelFault, match=said):
            await bench.call(broken)
    assert (await bench.call(good)).probabilities.tolist() == [[3, 3]]
    assert bench.statistics.of("a", "1").failed_loads == disk.opened.count("a")
    del disk.broken["a"]
    async with asyncio.timeout(60):
        while True:
            with suppress(ModelFault):
                await bench.call(broken)
                break
            await asyncio.sleep(0.01)
    assert bench.resident() == {"a", "b"}
    await bench.loader.close()


async def test_the_least_recently_used_makes_room(worker: Worker, disk: Disk) -> None:
    stages = {name: disk.stage(name) for name in "abc"}
    bench = Bench(worker, Limits(budget_bytes=100 * MIB), *stages.values())
    for name in "abac":
        await bench.call(stages[name])
    assert bench.resident() == {"a", "c"}
    assert not stages["b"].loaded
    await bench.call(stages["b"])
    assert bench.resident() == {"b", "c"}
    assert disk.opened == ["a", "b", "c", "b"]
    assert bench.statistics.of("a", "1").evictions == {Reason.MEMORY: 1}
    await bench.loader.close()


async def test_a_model_in_use_is_not_evicted_and_the_other_waits(
    worker: Worker, disk: Disk
) -> None:
    using, other = disk.stage("a"), disk.stage("b")
    bench = Bench(worker, Limits(budget_bytes=60 * MIB, idle_s=1e-3), using, other)
    with await bench.loader.ready(using, deadline=None):
        with pytest.raises(DeadlineUnmet, match="others that are in use leave no room"):
            await bench.call(other, budget_ms=50.0)
        waiting = asyncio.ensure_future(bench.call(other))
        await asyncio.sleep(0)
        assert bench.resident() == {"a"}
        assert using.loaded
    assert (await waiting).probabilities.tolist() == [[3, 3]]
    assert not using.loaded
    await bench.loader.close()


async def test_idle_models_leave_and_come_back(worker: Worker, disk: Disk) -> None:
    stages = [disk.stage("a"), disk.stage("b")]
    bench = Bench(worker, Limits(idle_s=0.01), *stages)
    for _ in range(2):
        for stage in stages:
            await bench.call(stage)
        await bench.until(set())
        assert not any(stage.loaded for stage in stages)
        assert worker.cost(stages[0]) is None
    assert disk.opened.count("a") == 2
    assert bench.statistics.of("a", "1").evictions == {Reason.IDLE: 2}
    await bench.loader.close()


async def test_what_cannot_be_met_is_refused_at_once_with_the_forecast(
    worker: Worker, disk: Disk
) -> None:
    slow = disk.measured("a", cost_ms=250.0)
    bench = Bench(worker, Limits(), slow)
    residence = bench.loader.residence
    residence._part(slow.key).load_ms.append(500.0)
    with pytest.raises(
        DeadlineRefused, match=r"forecast 500\.0 ms of loading and 250\.0 ms of computing, \d+"
    ):
        await bench.call(slow, budget_ms=740.0)
    await entered(disk)  # the next one finds it
    await bench.until({"a"})
    assert (await bench.call(slow, budget_ms=60_000.0)).probabilities.tolist() == [[3, 3]]
    await bench.loader.close()


async def test_no_more_wait_for_a_load_than_for_an_instance(worker: Worker, disk: Disk) -> None:
    stage = disk.stage("a")
    bench = Bench(worker, Limits(), stage)
    disk.allowed.clear()
    calls = [asyncio.ensure_future(bench.call(stage)) for _ in range(worker.queue_limit)]
    await entered(disk)
    with pytest.raises(Overloaded, match="100 requests are waiting for a/1/whole to be loaded"):
        await bench.call(stage)
    calls.append(asyncio.ensure_future(bench.call(stage, rank=-1)))  # for whom they do not count
    await asyncio.sleep(0)
    for rank in (0, 1):
        with pytest.raises(Overloaded, match="101 requests are waiting"):
            await bench.call(stage, rank=rank)
    disk.allowed.set()
    await asyncio.gather(*calls)
    await bench.loader.close()


async def test_a_model_that_is_retired_lets_its_callers_go(worker: Worker, disk: Disk) -> None:
    stage, other = disk.stage("a"), disk.stage("b")
    bench = Bench(worker, Limits(), stage, other)
    disk.allowed.clear()
    waiting = asyncio.ensure_future(bench.call(stage))
    await entered(disk)
    leaving = asyncio.ensure_future(bench.loader.forget([stage]))
    with pytest.raises(UnknownModel, match="a/1/whole was unloaded"):
        await waiting
    with pytest.raises(UnknownModel, match="a/1/whole was unloaded"):
        await bench.call(stage)
    disk.allowed.set()
    await leaving
    assert not stage.loaded
    assert (await bench.call(other)).probabilities.tolist() == [[3, 3]]
    again = disk.stage("a")
    bench.loader.add([again])
    assert (await bench.call(again)).probabilities.tolist() == [[3, 3]]
    await bench.loader.close()


async def test_calls_that_leave_take_nothing_with_them(worker: Worker, disk: Disk) -> None:
    stage = disk.stage("a")
    bench = Bench(worker, Limits(idle_s=0.01), stage)
    disk.allowed.clear()
    calls = [asyncio.ensure_future(bench.call(stage)) for _ in range(3)]
    await entered(disk)
    for call in calls[:2]:
        call.cancel()
    disk.allowed.set()
    assert (await calls[2]).probabilities.tolist() == [[3, 3]]
    await bench.until(set())
    await bench.loader.close()


async def test_what_is_loaded_when_it_comes_takes_work_at_once(worker: Worker, disk: Disk) -> None:
    stage = disk.stage("a")
    stage.load()
    bench = Bench(worker, Limits(), stage)
    assert worker.cost(stage) is not None
    assert bench.resident() == {"a"}
    await bench.loader.close()


async def test_a_bundle_that_goes_bad_says_it_is(worker: Worker, disk: Disk) -> None:
    stage = disk.stage("a")
    disk.broken["a"] = BundleError("its weights were altered")
    bench = Bench(worker, Limits(), stage)
    with pytest.raises(BundleError, match="its weights were altered"):
        await bench.call(stage)
    await bench.loader.close()


def test_a_stage_that_fails_when_it_is_tried_is_not_loaded(disk: Disk) -> None:
    class Broken(Echo):
        def run(self, batch: Array, sides: Tensors) -> Result:
            raise RuntimeError("cannot compute")

    stage = disk.stage("a")
    stage.open = Broken
    for _ in range(2):
        with pytest.raises(ModelFault, match="cannot compute"):
            stage.load()
        assert not stage.loaded
    stage.open = Echo
    stage.load()
    cost = stage.cost
    stage.unload()
    assert not stage.loaded
    stage.load()
    assert stage.loaded
    assert stage.cost is cost

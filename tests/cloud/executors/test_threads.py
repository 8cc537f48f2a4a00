import asyncio
import os
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hybridge.cloud.executors import threads
from hybridge.cloud.executors.threads import Threads

CORES = os.sched_getaffinity(0)
NO_WORKS: Any = ()
NO_STAGE: Any = None


class Watched:
    """Stands for a run: says where it is, and waits there."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)
        self.cores: list[set[int]] = []
        self.fault: BaseException | None = None

    def __call__(self, works: object, **further: object) -> str:
        self.cores.append(os.sched_getaffinity(0))
        self.began.release()
        assert self.allowed.acquire(timeout=60)
        if self.fault is not None:
            raise self.fault
        return "done"

    async def begun(self) -> None:
        assert await asyncio.to_thread(self.began.acquire, timeout=30)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched()
    monkeypatch.setattr(threads, "execute", watched)
    return watched


@pytest.fixture
async def executor(run: Watched) -> AsyncIterator[Threads]:
    executor = Threads(len(CORES))
    yield executor
    for _ in range(10):
        run.allowed.release()
    await executor.close()


@pytest.mark.skipif(len(CORES) < 2, reason="there is one core")
async def test_each_keeps_to_its_core_while_all_compute(executor: Threads, run: Watched) -> None:
    async def begin() -> "asyncio.Future[Any]":
        outcome = executor.run(NO_WORKS, NO_STAGE)
        await run.begun()
        return outcome

    running = [await begin() for _ in CORES]
    *first, last = run.cores
    assert first == [CORES] * len(first)  # others were free
    assert len(last) == 1
    for _ in CORES:  # each that goes on finds all others computing
        run.allowed.release()
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        running = [each for each in running if not each.done()] + [await begin()]
    kept = run.cores[len(CORES) :]
    assert all(len(cores) == 1 for cores in kept)
    for _ in CORES:
        run.allowed.release()
    await asyncio.wait(running)
    alone = await begin()
    assert run.cores[-1] == CORES  # and off it again
    run.allowed.release()
    await alone


async def test_fewer_threads_than_cores_keep_to_none(run: Watched) -> None:
    executor = Threads(1)
    outcome = executor.run(NO_WORKS, NO_STAGE)
    run.allowed.release()
    assert await outcome == "done"
    assert run.cores == [CORES]
    await executor.close()


async def test_a_defect_is_told(executor: Threads, run: Watched) -> None:
    run.fault = ZeroDivisionError("a defect")
    run.allowed.release()
    with pytest.raises(ZeroDivisionError, match="a defect"):
        await executor.run(NO_WORKS, NO_STAGE)


async def test_what_waits_when_it_closes_is_cancelled(run: Watched) -> None:
    executor = Threads(1)
    begun, waiting = [executor.run(NO_WORKS, NO_STAGE) for _ in range(2)]
    await run.begun()
    await executor.close()
    assert waiting.cancelled()
    assert not begun.done()
    run.allowed.release()

"""A lane: threads that work through jobs, the most urgent first, and know how long that takes."""

import asyncio
import heapq
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar

from ..shared.deadline import Clock, Deadline
from .duration import NO_TIME, Duration

T = TypeVar("T")


@dataclass(slots=True, order=True)
class _Job:
    """Work that somebody awaits, by its deadline and its place in the order of arrival."""

    at_s: float
    number: int
    work: Callable[[], Any] = field(compare=False)
    expected: Duration = field(compare=False)
    future: "asyncio.Future[Any]" = field(compare=False)
    started_s: float = field(default=0.0, compare=False)


class Lane:
    """Runs jobs on `threads` threads, earliest deadline first. Submitted to from one event loop.

    Those whose deadline has passed go last: they are lost, and would take others with them.

    A lane of lower priority (`nice` above 0) yields the processor to the others: the threads of one
    process compete under Linux like processes do. Jobs nobody awaits any more are never begun.
    """

    def __init__(self, name: str, *, threads: int, clock: Clock, nice: int = 0) -> None:
        self._clock = clock
        self._nice = nice
        self._numbers = itertools.count()
        self._waiting: list[_Job] = []
        self._late: list[_Job] = []
        self._running: dict[int, _Job] = {}
        self._threads = threads
        self._lock = threading.Lock()
        self._closed = False
        self._turns: SimpleQueue[None] = SimpleQueue()
        """One for each job that came, and one for each thread that is to end."""
        for number in range(threads):
            thread = threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            thread.start()

    def run(
        self, work: Callable[[], T], *, deadline: Deadline, expected: Duration = NO_TIME
    ) -> "asyncio.Future[T]":
        """What `work` returns, or raises, once its turn has come."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        job = _Job(deadline.at_s, next(self._numbers), work, expected, future)
        with self._lock:
            heapq.heappush(self._waiting, job)
        self._turns.put(None)
        return future

    def wait(self, deadline: Deadline) -> Duration:
        """How long a job of this deadline that came now would wait for its turn."""
        if not self._running and not self._waiting and not self._late:
            return NO_TIME
        now_s = self._clock()
        mean_ms = variance = 0.0
        for job in self._ahead(deadline, now_s):
            elapsed_ms = (now_s - job.started_s) * 1e3 if job.started_s else 0.0
            mean_ms += max(job.expected.mean_ms - elapsed_ms, 0.0)
            variance += job.expected.variance
        return Duration(mean_ms / self._threads, variance / self._threads)

    def close(self) -> None:
        """Lets what runs end, and forgets what waits."""
        with self._lock:
            waiting = self._waiting + self._late
            self._waiting, self._late, self._closed = [], [], True
        for job in waiting:
            job.future.cancel()
        for _ in range(self._threads):
            self._turns.put(None)

    def _ahead(self, deadline: Deadline, now_s: float) -> Iterator[_Job]:
        with self._lock:
            running, waiting = list(self._running.values()), self._waiting + self._late
        if len(running) >= self._threads:
            yield from running
        last = _place(deadline.at_s, now_s)
        yield from (
            job for job in waiting if _place(job.at_s, now_s) <= last and not job.future.done()
        )

    def _run(self) -> None:
        if self._nice:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        while self._work():
            pass

    def _work(self) -> bool:
        """Waits for a job and does it; False at the end. Between two nothing is held of either."""
        if (job := self._next()) is None:
            return False
        try:
            result, fault = job.work(), None
        except Exception as error:  # whoever awaits the job is told
            result, fault = None, error
        with self._lock:
            del self._running[job.number]
        loop = job.future.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, job.future, result, fault)
        return True

    def _next(self) -> _Job | None:
        while True:
            self._turns.get()
            with self._lock:
                if self._closed:
                    return None
                now_s = self._clock()
                while self._waiting and self._waiting[0].at_s <= now_s:
                    heapq.heappush(self._late, heapq.heappop(self._waiting))
                for jobs in (self._waiting, self._late):  # a job holds its picture
                    while jobs and jobs[0].future.done():
                        heapq.heappop(jobs)
                if jobs := self._waiting or self._late:
                    job = heapq.heappop(jobs)
                    job.started_s = now_s
                    self._running[job.number] = job
                    return job


def _place(at_s: float, now_s: float) -> tuple[bool, float]:
    """The order of deadlines: those that have passed are the last."""
    return at_s <= now_s, at_s


def _settle(future: "asyncio.Future[Any]", result: Any, fault: Exception | None) -> None:
    if future.done():  # cancelled meanwhile
        return
    if fault is not None:
        future.set_exception(fault)
    else:
        future.set_result(result)

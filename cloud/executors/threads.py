"""Batches on threads of this process."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from ...shared.deadline import Clock, monotonic
from ..cost import Cost
from ..scheduler import Capacity
from ..stage import Stage
from ..work import Execution, Work, execute
from .executor import Demand, Executor, Staff

_AT_ONCE_MS = 0.25
"""To hand a batch to a thread and back takes as long; what takes less is computed on the loop."""

AHEAD_S = 0.01
"""Where all cores compute, a handover takes milliseconds, in which a thread would have nothing to
do: so much sooner it has the next batch."""


class Threads(Executor):
    """`instances` threads; what they run, they run on the stage itself.

    Where there is one for each core, each stays on its own while all of them compute: when threads
    wake up, the kernel otherwise lays two on one core for a while, and the other one idles.

    What several have computed is told by another thread: whoever wakes the event loop itself has
    to wait for the interpreter's lock until the loop has dealt with it, before it can go on. One
    alone, on one core, would only wait for that thread as well.
    """

    here = True

    def __init__(self, instances: int, *, clock: Clock = monotonic) -> None:
        self._capacity = Capacity(instances=instances, ahead_s=AHEAD_S)
        self._cores = _Cores(instances)
        self._pool = ThreadPoolExecutor(
            instances, thread_name_prefix="instance", initializer=self._cores.enter
        )
        self._teller = ThreadPoolExecutor(1, thread_name_prefix="teller") if instances > 1 else None
        self._clock = clock

    @property
    def capacity(self) -> Capacity:
        return self._capacity

    @property
    def staff(self) -> Staff | None:
        return None

    async def start(self, *, demand: Callable[[], Demand], changed: Callable[[], None]) -> None:
        pass

    async def open(self, stage: Stage) -> Cost:
        return stage.cost

    async def let_go(self, stage: Stage) -> None:
        pass

    def at_once(self, stage: Stage, items: int) -> bool:
        # Not by what traffic teaches: the way to a thread is in it, and none came back from there.
        return stage.bounded and stage.cost.predict_ms(items) <= _AT_ONCE_MS

    def run(self, works: Sequence[Work], stage: Stage) -> asyncio.Future[Execution]:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Execution] = loop.create_future()

        def compute() -> None:
            try:
                with self._cores.taken():
                    told: Execution | BaseException = execute(works, stage=stage, clock=self._clock)
            except BaseException as error:
                told = error
            with contextlib.suppress(RuntimeError):  # closed, so nobody waits
                if self._teller is None:
                    loop.call_soon_threadsafe(_settle, outcome, told)
                else:
                    self._teller.submit(loop.call_soon_threadsafe, _settle, outcome, told)

        begun = self._pool.submit(compute)
        begun.add_done_callback(lambda begun: outcome.cancel() if begun.cancelled() else None)
        return outcome

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._teller is not None:
            self._teller.shutdown(wait=False)


def _settle(outcome: asyncio.Future[Execution], told: Execution | BaseException) -> None:
    if outcome.done():
        return
    if isinstance(told, BaseException):
        outcome.set_exception(told)
    else:
        outcome.set_result(told)


class _Cores:
    """Which core each thread of a pool keeps to; none while not all of them compute."""

    def __init__(self, threads: int) -> None:
        self._all = os.sched_getaffinity(0)
        self._one_each = len(self._all) == threads > 1
        self._threads = threads
        self._own = threading.local()
        self._left = sorted(self._all)
        self._busy = 0
        self._lock = threading.Lock()

    def enter(self) -> None:
        """For each thread of the pool, as it begins."""
        if self._one_each:
            with self._lock:
                self._own.core, self._own.stays = self._left.pop(), False

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """While the calling thread computes."""
        if not self._one_each:
            yield
            return
        with self._lock:
            self._busy += 1
            crowded = self._busy == self._threads
        if crowded is not self._own.stays:
            os.sched_setaffinity(0, {self._own.core} if crowded else self._all)
            self._own.stays = crowded
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1

"""Batches on threads of this process."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

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
    """`instances` threads; what they run, they run on the stage itself."""

    here = True

    def __init__(self, instances: int, *, clock: Clock = monotonic) -> None:
        self._capacity = Capacity(instances=instances, ahead_s=AHEAD_S)
        self._pool = ThreadPoolExecutor(instances, thread_name_prefix="instance")
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
        compute = partial(execute, works, stage=stage, clock=self._clock)
        return asyncio.get_running_loop().run_in_executor(self._pool, compute)

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

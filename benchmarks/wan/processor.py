"""A small board's processor in virtual time: a quota, shares by weight, and lanes of work.

A quota is what the laboratory's board has (board.py), as Linux keeps it (CFS bandwidth control,
kernel/sched/fair.c): in each period its share of the processor, and whoever has used it up waits
for the next. What runs is looked at when the clock ticks, 250 times a second, so that it may run on
for up to a tick; the next periods pay for that. What comes to an idle processor is looked at at
once.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hybridge.edge.duration import Duration
from hybridge.shared.deadline import Deadline

FOREGROUND, BACKGROUND = 1024.0, 110.0
"""Linux gives these shares to nice 0 and nice 10."""
_PERIOD_S, _TICK_S = 0.010, 0.004
_NOTHING_S, _ROUNDING = 1e-9, 1e-7


@dataclass
class Quota:
    """So much of each period may be used, by whoever comes first."""

    share: float
    period_s: float = _PERIOD_S
    tick_s: float = _TICK_S
    _period: int = -1
    _used_s: float = 0.0
    """Of this period, with what others before it were overdrawn by."""
    _stopped: bool = False
    """Nothing runs any more in this period."""
    _until_s: float = -math.inf

    def when(self, work_s: float, *, now_s: float) -> float:
        """When so much work would be done if it began now and nothing else ran."""
        return replace(self)._run(now_s, math.inf, work_s)[0]

    def use(self, from_s: float, to_s: float) -> float:
        """How much was done from then to then, with work there all the time."""
        ran_s = self._run(from_s, to_s, math.inf)[1]
        self._until_s = to_s
        return ran_s

    def _run(self, from_s: float, to_s: float, work_s: float) -> tuple[float, float]:
        """Until then, or until so much is done: the end, and how much was."""
        each_s, at_s, ran_s = min(self.share, 1.0) * self.period_s, from_s, 0.0
        self._enter(at_s, each_s)
        if from_s > self._until_s and self._used_s >= each_s:
            self._stopped = True
        while at_s < to_s and work_s - ran_s > _NOTHING_S:
            self._enter(at_s, each_s)
            end_s = (self._period + 1) * self.period_s
            if self._stopped:
                at_s = min(end_s, to_s)
                continue
            used_up_s = at_s + max(each_s - self._used_s, 0.0)
            seen_s = max(math.ceil(used_up_s / self.tick_s - _ROUNDING) * self.tick_s, at_s)
            next_s = min(seen_s, end_s, to_s, at_s + work_s - ran_s)
            self._used_s += next_s - at_s
            ran_s += next_s - at_s
            at_s = next_s
            self._stopped = at_s >= seen_s and self._used_s >= each_s - _NOTHING_S
        return at_s, ran_s

    def _enter(self, now_s: float, each_s: float) -> None:
        period = math.floor(now_s / self.period_s + _ROUNDING)
        if period > self._period:
            self._used_s = max(self._used_s - (period - self._period) * each_s, 0.0)
            self._stopped = self._stopped and self._used_s >= each_s
            self._period = period


class Processor:
    """One processor, shared by weight. Work is in ms of its time."""

    def __init__(self, *, share: float = 1.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._quota = Quota(share)
        self._jobs: dict[asyncio.Future[None], list[float]] = {}
        self._at_s = self._loop.time()
        self._ran_s = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    async def run(self, ms: float, weight: float) -> None:
        """Returns when so much work is done. A job that is cancelled runs on, as threads do."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._advance()
        self._jobs[done] = [ms / 1e3, weight]
        self._plan()
        await asyncio.shield(done)

    def used_s(self) -> float:
        """The time at full speed that all work has taken."""
        self._advance()
        return self._ran_s

    def _advance(self) -> None:
        now_s = self._loop.time()
        if self._jobs:
            ran_s = self._quota.use(self._at_s, now_s)
            self._ran_s += ran_s
            whole = sum(weight for _, weight in self._jobs.values())
            for job in self._jobs.values():
                job[0] -= ran_s * job[1] / whole
        self._at_s = now_s

    def _plan(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._jobs:
            whole = sum(weight for _, weight in self._jobs.values())
            next_s = min(left_s * whole / weight for left_s, weight in self._jobs.values())
            at_s = self._quota.when(max(next_s, 0.0), now_s=self._at_s)
            self._alarm = self._loop.call_at(at_s, self._wake)

    def _wake(self) -> None:
        self._advance()
        for future, (left_s, _) in list(self._jobs.items()):
            if left_s <= _NOTHING_S:
                del self._jobs[future]
                future.set_result(None)
        self._plan()


class Lane:
    """So many jobs at a time; the others wait, earliest deadline first, as in edge/lane.py."""

    def __init__(self, processor: Processor, *, threads: int, weight: float) -> None:
        self._processor, self._weight, self._free = processor, weight, threads
        self._threads = threads
        self._waiting: list[tuple[float, int, asyncio.Future[None], Duration]] = []
        self._running: dict[int, tuple[float, Duration]] = {}
        self._count = 0

    async def run(
        self, works_ms: Sequence[float], deadline: Deadline, expected: Duration
    ) -> list[float]:
        """Does one work after the other when its turn has come; how long each took, in ms."""
        loop = asyncio.get_running_loop()
        self._count += 1
        number = self._count
        if self._free:
            self._free -= 1
        else:
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting.append((deadline.at_s, number, turn, expected))
            self._waiting.sort(key=lambda job: job[:2])
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._next()  # given up in the instant in which its turn came
                raise
        self._running[number] = (loop.time(), expected)
        job = asyncio.ensure_future(self._work(works_ms))
        job.add_done_callback(lambda _: self._done(number))
        return await asyncio.shield(job)

    def wait(self, deadline: Deadline) -> Duration:
        """How long something of this deadline would wait for its turn now."""
        now_s = asyncio.get_running_loop().time()
        mean = variance = 0.0
        if not self._free:
            for began_s, expected in self._running.values():
                mean += max(expected.mean_ms - (now_s - began_s) * 1e3, 0.0)
                variance += expected.variance
        for at_s, _, turn, expected in self._waiting:
            if at_s <= deadline.at_s and not turn.done():
                mean += expected.mean_ms
                variance += expected.variance
        return Duration(mean / self._threads, variance / self._threads)

    async def _work(self, works_ms: Sequence[float]) -> list[float]:
        clock, took_ms = asyncio.get_running_loop().time, []
        for ms in works_ms:
            began_s = clock()
            await self._processor.run(ms, self._weight)
            took_ms.append((clock() - began_s) * 1e3)
        return took_ms

    def _done(self, number: int) -> None:
        del self._running[number]
        self._next()

    def _next(self) -> None:
        while self._waiting:
            turn = self._waiting.pop(0)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

"""Resident memory that grows window by window while nothing is loaded: something leaks.

Pure but for `keep_looking`. Models share a process, so that growth has no owner: told is which ran
meanwhile, and how often. Of a window the least counts, since what requests take comes and goes.
"""

import asyncio
import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from ..shared.deadline import Clock
from ..shared.sizes import written_bytes

log = logging.getLogger(__name__)

_WINDOW_S, _WINDOWS = 60.0, 6
_LOOK_S = 5.0
_LEAST_BYTES, _LEAST_SHARE = 32 << 20, 0.02
"""Less growth than that, and than this of all, is nobody's concern yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """The memory of a process and its workers, and how often each model has run until now.

    Where `holding` has changed, such as the models that are loaded, memory may have too.
    """

    resident_bytes: int
    runs: Mapping[str, int]
    holding: Hashable = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """By how much memory has grown steadily, and what ran meanwhile."""

    grown_bytes: int
    over_s: float
    runs: Mapping[str, int]

    def __str__(self) -> str:
        ran = ", ".join(f"{name} {count:,} times" for name, count in sorted(self.runs.items()))
        return (
            f"resident memory grows steadily, by {written_bytes(self.grown_bytes)} in "
            f"{self.over_s:.0f} s; meanwhile ran {ran or 'nothing'}"
        )


class GrowthWatch:
    """Looks now and then, and judges the last windows whenever one has ended."""

    def __init__(self) -> None:
        self.growth: Growth | None = None
        """As it is, where it is steady."""
        self._ended: deque[tuple[float, Sight]] = deque(maxlen=_WINDOWS + 1)
        self._least: Sight | None = None
        self._until_s = 0.0

    def look(self, sight: Sight, *, now_s: float) -> None:
        least = self._least
        if least is None or sight.holding != least.holding:
            self._ended.clear()
            self.growth = None
        elif now_s < self._until_s:
            if sight.resident_bytes < least.resident_bytes:
                self._least = sight
            return
        else:
            self._ended.append((now_s, least))
            self.growth = self._judged()
        self._least, self._until_s = sight, now_s + _WINDOW_S

    def _judged(self) -> Growth | None:
        if len(self._ended) <= _WINDOWS:
            return None
        sizes = [sight.resident_bytes for _, sight in self._ended]
        steps = [after - before for before, after in pairwise(sizes)]
        grown, half = sizes[-1] - sizes[0], len(steps) // 2
        flattens = sum(steps[half:]) < sum(steps[:half]) / 2
        if min(steps) <= 0 or flattens or grown < max(_LEAST_BYTES, _LEAST_SHARE * sizes[0]):
            return None
        (began_s, first), (ended_s, last) = self._ended[0], self._ended[-1]
        runs = Counter(last.runs)
        runs.subtract(first.runs)
        return Growth(grown_bytes=grown, over_s=ended_s - began_s, runs=+runs)


async def keep_looking(watch: GrowthWatch, see: Callable[[], Sight], *, clock: Clock) -> None:
    """Warns of steady growth, of what has been told already not again."""
    quiet_until_s = -math.inf
    while True:
        watch.look(see(), now_s=(now_s := clock()))
        if watch.growth is not None and now_s >= quiet_until_s:
            quiet_until_s = now_s + watch.growth.over_s
            log.warning("%s", watch.growth)
        await asyncio.sleep(_LOOK_S)

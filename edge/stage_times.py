"""How long each stage takes on this device now: a profile first, then what is seen. Pure.

    p95 = (1 - w) * profile's p95 * slowness + w * p95 of what was seen,    w = n / (n + 8)

so that the profile fades as runs come in. `slowness` is the median of the last nine runs over the
profile's median, three of which are, until there are nine, what stages of fixed work (the light
model, the heads) show at the moment: a clock that sinks slows all of them, also those that nobody
has run for a while. A step upwards is mostly in the forecast after five runs, as the median of nine
is. When all nine are clearly slower, or quicker, than what came before, that is forgotten. The
p99.9, on which the net hangs, forgets nothing within its window.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from itertools import islice
from typing import NamedTuple

from ..devices.models import LIGHT
from ..devices.profile import StageTime
from .duration import NO_TIME, Duration

_WINDOW = 64
_RECENT = 9
_TRUSTED = 3
"""Until a stage was seen so often, the other stages have a say in how slow it is."""
_PROFILE_RUNS = 8
"""A profile weighs as much as so many runs seen."""
_QUICKER = 0.8
_LATE = 20
_Z_95 = 1.6449
_MOST_SPREAD = 0.7
"""Of a logarithm. A wider lognormal through two quantiles has moments that no run ever showed."""
_STALE = 32
"""So many runs of other stages later, a stage's own are read as those of a machine of then."""


class _Stage:
    """The runs of one stage, the oldest first, and those that tell how fast it is now by length."""

    def __init__(self) -> None:
        self.seen_ms: deque[float] = deque(maxlen=_WINDOW)
        self.now_ms: list[float] = []
        self.at = 0
        self.slowness = 1.0
        """When the last was seen, in runs of fixed work, and how slow the machine was."""

    def observe(self, ms: float, *, at: int, slowness: float) -> None:
        now_ms = self.now_ms
        if len(now_ms) == _WINDOW:
            del now_ms[bisect_left(now_ms, self.seen_ms[0])]
        self.seen_ms.append(ms)
        insort(now_ms, ms)
        self.at, self.slowness = at, slowness
        if len(now_ms) >= 2 * _RECENT:
            recent_ms, middle = self.last_ms(_RECENT), (len(now_ms) - _RECENT) // 2
            # Past recent runs that are all below it, or all above, stands the median of the others.
            quicker = recent_ms[-1] < _QUICKER * now_ms[middle + _RECENT]
            slower = recent_ms[0] > now_ms[middle] / _QUICKER
            if quicker or slower:
                self.now_ms = recent_ms

    def last_ms(self, runs: int) -> list[float]:
        """So many of the last ones that count, by length."""
        return sorted(islice(reversed(self.seen_ms), min(runs, len(self.now_ms))))

    def upper_ms(self) -> float:
        """The p95 of a window, or the second largest of its last runs if they rose above that."""
        return max(_quantile(self.now_ms, 0.95), _quantile(self.last_ms(_LATE), 0.9))


class _Parts(NamedTuple):
    """Some stages: the profile's times of those that were never seen, added up, and the others."""

    mean_ms: float
    variance: float
    seen: tuple[str, ...]


class _Forecast(NamedTuple):
    """A run of a stage, as it is now."""

    mean_ms: float
    variance: float
    p95_ms: float


class StageTimes:
    """Upper quantiles per stage. A stage nobody measured takes forever, so nobody plans with it."""

    def __init__(self, profile: dict[str, StageTime]) -> None:
        self._profile = profile
        self._stages: dict[str, _Stage] = {}
        self._fixed: deque[float] = deque([1.0] * _RECENT, maxlen=_RECENT)
        self._fixed_runs = 0
        self._slowness = 1.0
        """The median of the last runs of fixed work, over their profile's."""
        self._parts: dict[tuple[str, ...], _Parts] = {}
        self._forecasts: dict[str, _Forecast] = {}
        """What was asked for since the last run."""

    def observe(self, stage: str, ms: float) -> None:
        """One run of a stage took so long."""
        self._forecasts.clear()
        known = self._profile.get(stage)
        if known is not None and known.p50_ms > 0 and (stage == LIGHT or stage.startswith("head:")):
            self._fixed.append(ms / known.p50_ms)
            self._fixed_runs += 1
            self._slowness = _median(self._fixed)
        seen = self._stages.get(stage)
        if seen is None:
            seen = self._stages[stage] = _Stage()
            self._parts.clear()
        seen.observe(ms, at=self._fixed_runs, slowness=self._slowness)

    def whole(self, stages: tuple[str, ...]) -> Duration:
        """What a run of each takes now, one after the other: lognormals by median and p95."""
        mean_ms, variance, seen = self._parts.get(stages) or self._part(stages)
        slowness, forecasts = self._slowness, self._forecasts
        mean_ms *= slowness
        variance = variance * slowness * slowness
        for stage in seen:
            stage_ms, stage_variance, _ = forecasts.get(stage) or self._forecast(stage)
            mean_ms += stage_ms
            variance += stage_variance
        return Duration(mean_ms, variance)

    def _part(self, stages: tuple[str, ...]) -> "_Parts":
        unseen = [each for each in stages if each in self._profile and each not in self._stages]
        profiled = NO_TIME
        for stage in unseen:
            known = self._profile[stage]
            profiled = profiled.then(_through(known.p50_ms, known.p95_ms))
        seen = tuple(each for each in stages if each not in unseen)
        parts = self._parts[stages] = _Parts(profiled.mean_ms, profiled.variance, seen)
        return parts

    def alone_ms(self, stage: str) -> float:
        """What the profile says a run takes when nothing else runs; 0 if it knows nothing."""
        known = self._profile.get(stage)
        return known.p50_ms if known is not None else 0.0

    def least_ms(self, stage: str) -> float:
        """A lower quartile of what was seen, about what it takes alone; 0 while nothing was."""
        seen = self._stages.get(stage)
        return _quantile(seen.now_ms, 0.25) if seen is not None else 0.0

    def p95_ms(self, stage: str) -> float:
        """What nineteen runs of twenty stay below."""
        return (self._forecasts.get(stage) or self._forecast(stage)).p95_ms

    def usual_ms(self, stages: tuple[str, ...]) -> float:
        """The p95 of each, one after the other."""
        return sum(self.p95_ms(stage) for stage in stages)

    def late_ms(self, stages: tuple[str, ...]) -> float:
        """How much more that may be in one case of a thousand: no more than one is off by much.

        A sum of times with heavy tails is large because one of them is (Foss, Korshunov, Zachary:
        An Introduction to Heavy-Tailed and Subexponential Distributions, 2013, chapter 3). While
        few were seen a usual run comes on top: those of a profile, in a loop, had warm caches and a
        thread that did not sleep.
        """
        most_ms = cold_ms = 0.0
        for stage in stages:
            if (p95_ms := self.p95_ms(stage)) < math.inf:
                most_ms = max(most_ms, self.p999_ms(stage) - p95_ms)
                cold_ms += self._unseen(stage) * p95_ms
        return most_ms + cold_ms

    def p999_ms(self, stage: str) -> float:
        """No window shows a p99.9: the profile's, or a fifth above the slowest seen.

        A slow machine adds to the profile's what it adds to a usual run: what makes one run in a
        thousand late is mostly not the work itself.
        """
        known, seen = self._profile.get(stage), self._stages.get(stage)
        slowest = max(seen.seen_ms) if seen is not None else 0.0
        if known is None:
            return float("inf")
        added_ms = known.p50_ms * max(self._slowness - 1, 0.0)
        return max(known.p999_ms + added_ms, 1.2 * slowest)

    def _forecast(self, stage: str) -> _Forecast:
        p50_ms, p95_ms = self._quantiles_ms(stage)
        run = _through(p50_ms, p95_ms)
        found = self._forecasts[stage] = _Forecast(run.mean_ms, run.variance, p95_ms)
        return found

    def _quantiles_ms(self, stage: str) -> tuple[float, float]:
        """The median and the p95 of a run now."""
        known, seen, machine = self._profile.get(stage), self._stages.get(stage), self._slowness
        if known is None:
            if seen is None or len(seen.now_ms) < _PROFILE_RUNS:
                return math.inf, math.inf
            return _quantile(seen.now_ms, 0.5), seen.upper_ms()
        if seen is None:
            return known.p50_ms * machine, known.p95_ms * machine
        stale = self._fixed_runs - seen.at >= _STALE
        since = machine / seen.slowness if stale else 1.0
        slowness = self._slowness_of(seen, known) * since
        unseen = self._unseen(stage)
        weight = 1.0 - unseen
        return (
            unseen * (known.p50_ms * slowness) + weight * _quantile(seen.now_ms, 0.5) * since,
            unseen * (known.p95_ms * slowness) + weight * seen.upper_ms() * since,
        )

    def _unseen(self, stage: str) -> float:
        """What the profile still says of a stage: 1 while it was never seen, then less and less."""
        seen = self._stages.get(stage)
        return _PROFILE_RUNS / (_PROFILE_RUNS + (len(seen.now_ms) if seen is not None else 0))

    def _slowness_of(self, seen: _Stage, known: StageTime) -> float:
        """The median of a stage's last runs over its profile's, other stages having their say."""
        recent_ms, machine = seen.last_ms(_RECENT), self._slowness
        if known.p50_ms <= 0:
            return machine
        if len(recent_ms) == _RECENT:
            return recent_ms[_RECENT // 2] / known.p50_ms
        own = [ms / known.p50_ms for ms in recent_ms]
        return _median([*own, *[machine] * min(_TRUSTED, _RECENT - len(own))])


def _through(p50_ms: float, p95_ms: float) -> Duration:
    """The lognormal of this median and this p95; of the p95 alone where they lie far apart."""
    if p50_ms <= 0.0 or p95_ms <= p50_ms or p95_ms == math.inf:
        return Duration(p95_ms)
    spread = min(math.log(p95_ms / p50_ms) / _Z_95, _MOST_SPREAD)
    spread2 = spread * spread
    mean_ms = p95_ms * math.exp(spread2 / 2 - _Z_95 * spread)
    return Duration(mean_ms, mean_ms * mean_ms * math.expm1(spread2))


def _median(values: "list[float] | deque[float]") -> float:
    return sorted(values)[len(values) // 2]


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

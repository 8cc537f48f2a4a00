"""When the light model has to start, so that there is an answer whatever the cloud does. Pure.

That is at the deadline less its p99.9. What runs is not interrupted, so that a stage of another
plan that has just begun may be in its way (the blocking term of scheduling without preemption;
Jeffay, Stanat and Martel, RTSS 1991).

While an answer is under way that comes in time but for one case in ten, the device's own is wanted
in that case only. A run no longer than 997 of a thousand is then late in 0.1 * 0.003 = 0.0003 of
all cases, as one no longer than nineteen of twenty is where it is wanted in one case in 170. That
is a third of what may be late: a processor that stands still delays both. It matters on a small
processor: light models that start early, to be sure, take the time that the remote plans would need
to be in time, and by that last longer.

That does not hold for a picture much larger than the others: its run is known to be a long one.
Nor is a forecast alone believed in that: how often answers as good as sure failed to come in time
is counted, and two in short succession end it, for a while. Not for long, as a board that is full
of light models does not get to see what the cloud would do.
"""

import math
from statistics import NormalDist

from ..devices.models import LIGHT, RESIZE_LIGHT
from .stage_times import StageTimes

_STAGES = (RESIZE_LIGHT, LIGHT)
SAFE = 0.99
"""As good as sure to come in time."""
_LATE = 0.0003
"""So many answers may be late, as far as the light model is not late because the other is."""
_USUAL, _ALMOST_ALL = 0.95, 0.999
_NORMAL = NormalDist()
_Z_USUAL, _Z_MOST = _NORMAL.inv_cdf(_USUAL), _NORMAL.inv_cdf(_ALMOST_ALL)
_WEIGHT = 0.02
_MOST = 0.03
"""Of answers as good as sure so many may fail, by a mean of some fifty."""
_MEMORY_S = 20.0
_LARGER = 2.0
"""As many values as others have on average, by a mean of some fifty."""


class Net:
    """The start of the light model, and how well the cloud keeps what is expected of it."""

    def __init__(self, times: StageTimes) -> None:
        self._times = times
        self._failing = self._at_s = 0.0
        self._size = 0.0

    def needs_ms(self, *, now_s: float, in_time: float = 0.0, waits_ms: float = 0.0) -> float:
        """How long before the answer is due the light model has to start.

        An answer under way is there in time with `in_time`; 0 if there is none. `waits_ms` is what
        is before the light model, or may be.
        """
        needs_ms = waits_ms + self._times.usual_ms(_STAGES)
        wanted = 1.0 - in_time if self._faded(now_s) < _MOST else 1.0
        if (beyond := _beyond(wanted)) > 0.0:
            needs_ms += beyond * self._times.late_ms(_STAGES)
        return needs_ms

    def is_large(self, size: int) -> bool:
        """Whether a picture of so many values, from now on one of the others, is much larger."""
        before = self._size or size
        self._size = before + _WEIGHT * (size - before)
        return size > _LARGER * before

    def saw(self, *, in_time: bool, now_s: float) -> None:
        """What was as good as sure to come in time did, or never will."""
        failing = self._faded(now_s)
        self._failing = failing + _WEIGHT * ((0.0 if in_time else 1.0) - failing)
        self._at_s = now_s

    def _faded(self, now_s: float) -> float:
        return self._failing * math.exp(min(self._at_s - now_s, 0.0) / _MEMORY_S)


def _beyond(wanted: float) -> float:
    """How far from its p95 (0) to its p99.9 (1) a run is waited for that is wanted so often.

    By standard normal deviations, as of a lognormal.
    """
    if wanted <= _LATE / (1.0 - _USUAL):
        return 0.0
    return min((_NORMAL.inv_cdf(1.0 - _LATE / wanted) - _Z_USUAL) / (_Z_MOST - _Z_USUAL), 1.0)

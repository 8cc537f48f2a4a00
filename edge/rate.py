"""How often and how regularly something happens lately. Pure: the clock is an argument."""

import math

from .processor import WANTED

_MEMORY_S = 2.0
_LEAST_S = 0.1
"""What is counted is taken to have been counted for so long at least."""
_GAP_WEIGHT, _MOST_GAP_S, _MOST_VARIATION2 = 0.05, 10.0, 4.0
"""A gap weighs as much, and one pause does not stand for all of them."""


class Rate:
    """Events per second, each fading with time.

    >>> rate = Rate()
    >>> for tick in range(100):
    ...     rate.count(now_s=tick / 10)
    >>> round(rate.hz(now_s=9.9)), round(rate.hz(now_s=60.0))
    (10, 0)
    """

    def __init__(self) -> None:
        self._events = self._at_s = 0.0
        self._since_s = math.inf

    def count(self, *, now_s: float, weight: float = 1.0) -> None:
        """One more, now."""
        self._events = weight + self._faded(now_s)
        self._at_s = max(now_s, self._at_s)
        self._since_s = min(self._since_s, now_s)

    def hz(self, *, now_s: float) -> float:
        """Events per second."""
        counted_s = max(now_s - self._since_s, 0.0) + _LEAST_S
        return self._faded(now_s) / (_MEMORY_S * -math.expm1(-counted_s / _MEMORY_S))

    def _faded(self, now_s: float) -> float:
        return self._events * math.exp(min(self._at_s - now_s, 0.0) / _MEMORY_S)


class Gaps:
    """How irregular the gaps between events are: variance over squared mean, 4 at most.

    It is 0 for what happens by the clock and 1 for what happens by chance, which is what is
    believed first.

    >>> gaps = Gaps()
    >>> for tick in range(100):
    ...     gaps.count(now_s=tick / 10)
    >>> round(gaps.variation2, 2)
    0.01
    """

    def __init__(self) -> None:
        self.variation2 = 1.0
        self._mean_s, self._at_s = 0.0, math.inf

    def count(self, *, now_s: float) -> None:
        """One more, now."""
        gap_s, self._at_s = min(max(now_s - self._at_s, 0.0), _MOST_GAP_S), now_s
        if self._mean_s > 0.0:
            off = gap_s / self._mean_s - 1.0
            self.variation2 += _GAP_WEIGHT * (min(off * off, _MOST_VARIATION2) - self.variation2)
            self._mean_s += _GAP_WEIGHT * (gap_s - self._mean_s)
        else:
            self._mean_s = gap_s


MOST_LOAD = 0.95


def crowd_ms(own_ms: float, *, load: float, waited: float = 1.0) -> float:
    """How long one waits behind others like itself, when they take this share of the time.

    The waiting time of an M/M/1 queue (Kleinrock, Queueing Systems I, 3.2), finite beyond what can
    be served; or `waited` of it, where they come more regularly. Beyond a load of `WANTED` there is
    no room for all of them, however regularly they come.

    >>> crowd_ms(10.0, load=0.5)
    10.0
    """
    load = min(load, MOST_LOAD)
    room = min(load, WANTED)
    return own_ms * (load / (1.0 - load) - (1.0 - waited) * room / (1.0 - room))

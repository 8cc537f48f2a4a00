"""How often something happens lately. Pure: the clock is an argument."""

import math

_MEMORY_S = 2.0
_LEAST_S = 0.1
"""What is counted is taken to have been counted for so long at least."""


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


MOST_LOAD = 0.95


def crowd_ms(own_ms: float, *, load: float) -> float:
    """How long one waits behind others like itself, when they take this share of the time.

    The waiting time of an M/M/1 queue (Kleinrock, Queueing Systems I, 3.2), finite beyond what can
    be served.

    >>> crowd_ms(10.0, load=0.5)
    10.0
    """
    load = min(load, MOST_LOAD)
    return own_ms * load / (1.0 - load)

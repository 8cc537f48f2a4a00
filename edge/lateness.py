"""How late this process is for what it set itself to do, and what it does beside models. Pure."""

import math
from bisect import bisect_left, insort
from collections import deque

_WINDOW = 128
_QUANTILE = 0.99
_UNKNOWN_MS = 20.0
"""Believed at least, each, of a process of which little is known yet."""
_KNOWN = 32
"""So many waits and answers make one known."""
_WAYS = 2.0
"""A request takes as long on its way in as its answer on the way out, where nobody tells."""
_SERVICE = 2.0
"""An answer passes through as much again, between the agent and the wire, as within the agent."""


class _Window:
    """The last values, as they came and by size."""

    def __init__(self) -> None:
        self._values: deque[float] = deque()
        self.ordered: list[float] = []

    def add(self, value: float) -> None:
        if len(self._values) == _WINDOW:
            del self.ordered[bisect_left(self.ordered, self._values.popleft())]
        self._values.append(value)
        insort(self.ordered, value)


class Lateness:
    """What is kept back of budgets: measured, because a small or busy processor is late by more.

    A wait that should have ended at an instant ends later; an answer takes more than its stages.
    """

    def __init__(self) -> None:
        self._late_ms, self._out_ms, self._beside_ms = _Window(), _Window(), _Window()
        self._in_ms = _Window()
        self._after_ms, self._reserve_ms = 2 * _UNKNOWN_MS, (1 + _WAYS) * _UNKNOWN_MS
        self._overhead_ms = 0.0

    def woke(self, late_ms: float) -> None:
        """A wait ended so much after its time."""
        self._late_ms.add(max(late_ms, 0.0))
        self._reckon()

    def left(self, out_ms: float) -> None:
        """An answer was on the wire so long after it was ready."""
        self._out_ms.add(max(out_ms, 0.0))
        self._reckon()

    def arrived(self, in_ms: float) -> None:
        """A request that told when it was sent had been under way for so long."""
        self._in_ms.add(max(in_ms, 0.0))
        self._reckon()

    def _reckon(self) -> None:
        in_ms, out_ms = self._in_ms.ordered, _expected(self._out_ms.ordered)
        self._after_ms = _expected(self._late_ms.ordered) + out_ms
        told = len(in_ms) >= _KNOWN
        self._reserve_ms = self._after_ms + (_expected(in_ms) if told else (_WAYS - 1) * out_ms)

    def took(self, beside_ms: float) -> None:
        """A local answer took so much more than its stages."""
        self._beside_ms.add(max(beside_ms, 0.0))
        ordered = self._beside_ms.ordered
        self._overhead_ms = _SERVICE * ordered[len(ordered) // 4]

    @property
    def reserve_ms(self) -> float:
        """What a request needs on its way in, and its answer from when it is due till it left."""
        return self._reserve_ms

    @property
    def after_ms(self) -> float:
        """The same without the way in: for a request that told when it was sent."""
        return self._after_ms

    @property
    def overhead_ms(self) -> float:
        """What a request takes beside its stages, when little else runs."""
        return self._overhead_ms


def _expected(ordered: list[float]) -> float:
    if len(ordered) < _KNOWN:
        return max([_UNKNOWN_MS, *ordered[-1:]])
    return ordered[math.ceil(_QUANTILE * (len(ordered) - 1))]

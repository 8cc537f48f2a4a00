"""What a run costs: a + b*n milliseconds for n items, measured at the start, corrected online."""

from collections import deque
from dataclasses import dataclass, field

BATCHING_GAIN = 0.10
"""A batch must make its items cheaper by this share, or none is formed."""

_LINGER_SHARE = 0.25
_SHORTEST_LINGER_MS = 0.25
_WINDOW = 256
_LEARNING_RATE = 0.2
_FORGET_S = 10.0
_SLOWEST, _FASTEST = 8.0, 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One execution of n items takes `fixed_ms + per_item_ms * n`.

    `batch_items` is the largest batch worth forming out of several requests; 1: none is.
    """

    fixed_ms: float
    per_item_ms: float
    batch_items: int = 1

    @classmethod
    def fit(cls, *, one_ms: float, full_ms: float, full_items: int) -> "Cost":
        """The line through the times of 1 and of `full_items` items.

        >>> Cost.fit(one_ms=5.0, full_ms=12.0, full_items=8)
        Cost(fixed_ms=4.0, per_item_ms=1.0, batch_items=8)
        >>> Cost.fit(one_ms=5.0, full_ms=40.0, full_items=8)
        Cost(fixed_ms=0.0, per_item_ms=5.0, batch_items=1)
        """
        if full_items <= 1:
            return cls(fixed_ms=0.0, per_item_ms=one_ms)
        slope = max(0.0, (full_ms - one_ms) / (full_items - 1))
        fixed_ms = max(0.0, one_ms - slope)
        gains = full_ms / full_items < (1 - BATCHING_GAIN) * one_ms
        return cls(
            fixed_ms=fixed_ms,
            per_item_ms=slope if fixed_ms else full_ms / full_items,
            batch_items=full_items if gains else 1,
        )

    def predict_ms(self, items: int) -> float:
        return self.fixed_ms + self.per_item_ms * items

    @property
    def linger_ms(self) -> float:
        """How long a first item may wait for company: a part of what company would save.

        Less than a timer's grain is not worth a timer.
        """
        linger_ms = _LINGER_SHARE * self.fixed_ms if self.batch_items > 1 else 0.0
        return linger_ms if linger_ms >= _SHORTEST_LINGER_MS else 0.0


@dataclass(slots=True)
class OnlineCost:
    """A cost that follows what executions take in traffic.

    What was learnt fades within seconds of the last execution: otherwise a slow spell would make
    the scheduler refuse everything, and a stage that is refused everything never learns better.
    """

    base: Cost
    _factor: float = 1.0
    _learned_s: float = 0.0
    _recent_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    def at(self, now_s: float) -> Cost:
        """The cost to reckon with now."""
        factor = self._faded(now_s)
        return Cost(
            fixed_ms=self.base.fixed_ms * factor,
            per_item_ms=self.base.per_item_ms * factor,
            batch_items=self.base.batch_items,
        )

    def observe(self, items: int, *, took_ms: float, now_s: float) -> None:
        """Learns from one execution."""
        self._recent_ms.append(took_ms)
        expected_ms = self.base.predict_ms(items)
        if expected_ms <= 0:
            return
        seen = min(max(took_ms / expected_ms, _FASTEST), _SLOWEST)
        old = self._faded(now_s)
        self._factor = old + _LEARNING_RATE * (seen - old)
        self._learned_s = now_s

    def quantile_ms(self, share: float) -> float:
        """Of the last executions; the start's measurement of one item while there are none."""
        if not self._recent_ms:
            return self.base.predict_ms(1)
        ordered = sorted(self._recent_ms)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    def _faded(self, now_s: float) -> float:
        age_s = max(0.0, now_s - self._learned_s)
        return 1.0 + (self._factor - 1.0) * max(0.0, 1.0 - age_s / _FORGET_S)

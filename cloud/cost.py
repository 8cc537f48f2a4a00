"""What a run costs: a + b*n milliseconds for n items, measured at the start, corrected online."""

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field

import msgspec

BATCHING_GAIN = 0.10
"""A batch must make its items cheaper by this share, or none is formed."""

_AS_MUCH = 0.05
"""What two items together may take more than one after the other, by so few measurements."""

_LINGER_SHARE = 0.25
_SHORTEST_LINGER_MS = 0.25
_WINDOW = 256
_EXCESSES = 64
SURE, _MOST_SLACK = 0.95, 1.0
_LEARNING_RATE = 0.2
_FORGET_S = 10.0
_SLOWEST, _FASTEST = 8.0, 0.25


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of n items takes `fixed_ms + per_item_ms * n`.

    `batch_items` is the largest batch worth forming out of several requests; 1: none is. A first
    item never waits longer than `most_linger_ms` for company. As many as `crowd_items` take no
    longer together than one by one, but are handed over once: out of a crowd they go together. Of
    twenty executions about one takes more than `slack` times as long again.
    """

    fixed_ms: float
    per_item_ms: float
    batch_items: int = 1
    crowd_items: int = 1
    most_linger_ms: float = math.inf
    slack: float = 0.0

    @classmethod
    def fit(
        cls, *, one_ms: float, full_ms: float, full_items: int, two_ms: float = math.inf
    ) -> "Cost":
        """The line through the times of 1 and of `full_items` items.

        >>> cost = Cost.fit(one_ms=5.0, full_ms=12.0, full_items=8)
        >>> cost.fixed_ms, cost.per_item_ms, cost.batch_items
        (4.0, 1.0, 8)
        >>> Cost.fit(one_ms=5.0, full_ms=40.0, full_items=8).batch_items
        1
        >>> Cost.fit(one_ms=5.0, two_ms=10.0, full_ms=40.0, full_items=8).crowd_items
        2
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
            crowd_items=2 if two_ms <= (1 + _AS_MUCH) * 2 * one_ms else 1,
        )

    def predict_ms(self, items: int) -> float:
        return self.fixed_ms + self.per_item_ms * items

    def surely_ms(self, items: int) -> float:
        """What an execution hardly ever takes more than: for whoever must not be late."""
        return self.predict_ms(items) * (1.0 + self.slack)

    def in_company_ms(self, items: int) -> float:
        """What it costs in a full batch."""
        if self.batch_items <= 1:
            return self.predict_ms(items)
        return self.predict_ms(self.batch_items) * items / self.batch_items

    @property
    def linger_ms(self) -> float:
        """How long a first item may wait for company: a part of what company would save.

        Less than a timer's grain is not worth a timer.
        """
        if self.batch_items <= 1:
            return 0.0
        linger_ms = min(_LINGER_SHARE * self.fixed_ms, self.most_linger_ms)
        return linger_ms if linger_ms >= _SHORTEST_LINGER_MS else 0.0


@dataclass(slots=True)
class OnlineCost:
    """A cost that follows what executions take in traffic.

    What was learnt fades within seconds of the last execution: otherwise a slow spell would make
    the scheduler refuse everything, and a stage that is refused everything never learns better.
    """

    base: Cost
    _factor: float = 1.0
    _slack: float = 0.0
    _learned_s: float = 0.0
    _recent_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    _excess: "Recent" = field(default_factory=lambda: Recent(_EXCESSES))

    def at(self, now_s: float) -> Cost:
        """The cost to reckon with now."""
        fresh = self._fresh(now_s)
        factor = 1.0 + (self._factor - 1.0) * fresh
        base = self.base
        return Cost(
            fixed_ms=base.fixed_ms * factor,
            per_item_ms=base.per_item_ms * factor,
            batch_items=base.batch_items,
            crowd_items=base.crowd_items,
            most_linger_ms=base.most_linger_ms,
            slack=self._slack * fresh,
        )

    def observe(self, items: int, *, took_ms: float, now_s: float) -> None:
        """Learns from one execution."""
        self._recent_ms.append(took_ms)
        expected_ms = self.base.predict_ms(items)
        if expected_ms <= 0:
            return
        seen = min(max(took_ms / expected_ms, _FASTEST), _SLOWEST)
        old = 1.0 + (self._factor - 1.0) * self._fresh(now_s)
        self._excess.add(seen / old - 1.0)
        self._slack = min(max(0.0, self._excess.quantile(SURE)), _MOST_SLACK)
        self._factor = old + _LEARNING_RATE * (seen - old)
        self._learned_s = now_s

    def quantile_ms(self, share: float) -> float:
        """Of the last executions; the start's measurement of one item while there are none."""
        if not self._recent_ms:
            return self.base.predict_ms(1)
        ordered = sorted(self._recent_ms)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    def _fresh(self, now_s: float) -> float:
        """How much of what was learnt still counts, from 1 down to 0."""
        age_s = max(0.0, now_s - self._learned_s)
        return max(0.0, 1.0 - age_s / _FORGET_S)


class Recent:
    """The last `window` values of something, in order.

    >>> recent = Recent(3)
    >>> for value in (9.0, 1.0, 2.0, 3.0):
    ...     recent.add(value)
    >>> recent.quantile(0.5)
    2.0
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._values: deque[float] = deque()
        self._ordered: list[float] = []

    def add(self, value: float) -> None:
        if len(self._values) == self._window:
            del self._ordered[bisect_left(self._ordered, self._values.popleft())]
        self._values.append(value)
        insort(self._ordered, value)

    def quantile(self, share: float) -> float:
        """0 while there is none."""
        return self._ordered[int(share * (len(self._ordered) - 1))] if self._ordered else 0.0

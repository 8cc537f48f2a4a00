"""What the link to the cloud can do, learnt from what crossed it. Pure: no sockets, no clock.

An exchange of n bytes is modelled as t = rtt + 8 n / throughput; what the model misses is kept as
the ratio of measured to modelled time, and a forecast is the model times an upper quantile of those
ratios: quantiles, not means. The point estimates are medians of a short window, so that one odd
exchange moves nothing. Two exchanges in a row that are off by more than a factor of two mean that
the link has changed, and so do two in a row of a kind (small: the round trip; large: the
throughput): what came before them is forgotten. So is what is older than half a minute.

A refused wait teaches too: an exchange given up after t ms took at least t.
"""

from collections import deque
from dataclasses import dataclass
from statistics import median

_WINDOW = 24
_MAX_AGE_S = 30.0
_QUANTILE = 0.9
_SMALL_BYTES = 2_000
"""Up to this size an exchange says more about the round trip than about throughput."""
_PRIOR_RATIO = 1.5
"""Stands in for a history while there is none; each exchange pushes its weight down."""
_ENOUGH = 12
_CHANGE = 2.0
_STALE_AFTER_S = 30.0


@dataclass(frozen=True, slots=True)
class _Exchange:
    size_bytes: int
    ms: float
    at_s: float


@dataclass(frozen=True, slots=True)
class LinkReading:
    """The link as it stands: medians, and how much is known."""

    rtt_ms: float
    throughput_bps: float
    exchanges: int


class LinkEstimate:
    """Learns from exchanges, forecasts transfer times."""

    def __init__(self) -> None:
        self._exchanges: deque[_Exchange] = deque(maxlen=_WINDOW)
        self._ratios: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self._in_a_row = 0  # surprises, of any kind
        self._of_a_kind = {True: 0, False: 0}  # surprises in a row: small exchanges, large ones
        # What every plan of every request asks for, kept until the next exchange.
        self._medians: tuple[float, float] | None = None
        self._seen_ratio: float | None = None

    @property
    def known(self) -> bool:
        """True once at least one exchange was seen."""
        return bool(self._exchanges)

    def observe(self, size_bytes: int, ms: float, *, now_s: float) -> None:
        """An exchange of so many bytes upward took so long, the cloud's own share taken out."""
        exchange = _Exchange(size_bytes, max(ms, 0.01), now_s)
        if any(_small(seen) == _small(exchange) for seen in self._exchanges):
            self._judge(exchange)  # otherwise the model has nothing to go by yet
        self._exchanges.append(exchange)
        while self._exchanges[0].at_s < now_s - _MAX_AGE_S:
            self._exchanges.popleft()
        while self._ratios and self._ratios[0][1] < now_s - _MAX_AGE_S:
            self._ratios.popleft()
        self._medians = self._seen_ratio = None

    def observe_timeout(self, size_bytes: int, ms: float, *, now_s: float) -> None:
        """An exchange was given up after so long: it would have taken longer than that."""
        if self.known and ms <= self._model_ms(size_bytes):
            return  # says nothing that was not expected
        self.observe(size_bytes, ms, now_s=now_s)

    def forecast_ms(self, size_bytes: int, *, now_s: float) -> float:
        """A time that about 9 of 10 exchanges of this size stay under; inf while unknown."""
        if not self.known:
            return float("inf")
        prior = 1.0 + (_PRIOR_RATIO - 1.0) * max(0, _ENOUGH - len(self._ratios)) / _ENOUGH
        if self._seen_ratio is None:
            self._seen_ratio = _upper_quantile([ratio for ratio, _ in self._ratios])
        idle_s = now_s - self._exchanges[-1].at_s
        ageing = 1.0 + min(max(idle_s, 0.0) / _STALE_AFTER_S, 1.0) * 0.5
        return self._model_ms(size_bytes) * max(prior, self._seen_ratio) * ageing

    def reading(self) -> LinkReading:
        """The present medians; throughput is inf while no large exchange was seen."""
        if not self.known:
            return LinkReading(float("inf"), 0.0, 0)
        return LinkReading(self._rtt_ms(), self._throughput_bps(), len(self._exchanges))

    def _judge(self, exchange: _Exchange) -> None:
        ratio = exchange.ms / self._model_ms(exchange.size_bytes)
        surprising = not 1 / _CHANGE < ratio < _CHANGE
        kind = _small(exchange)
        self._in_a_row = self._in_a_row + 1 if surprising else 0
        self._of_a_kind[kind] = self._of_a_kind[kind] + 1 if surprising else 0
        if self._in_a_row >= 2 or self._of_a_kind[kind] >= 2:
            self._forget_all_but_surprises(kind)
        else:
            self._ratios.append((ratio, exchange.at_s))

    def _forget_all_but_surprises(self, kind: bool) -> None:
        """The link is another one now; the exchange under judgement is about to be kept too."""
        one_kind = self._in_a_row < 2
        last = next(e for e in reversed(self._exchanges) if not one_kind or _small(e) == kind)
        self._exchanges.clear()
        self._ratios.clear()
        self._exchanges.append(last)
        self._in_a_row, self._of_a_kind = 0, {True: 0, False: 0}

    def _model_ms(self, size_bytes: int) -> float:
        if self._medians is None:
            self._medians = self._rtt_ms(), self._throughput_bps()
        rtt_ms, throughput_bps = self._medians
        return rtt_ms + size_bytes * 8e3 / throughput_bps

    def _rtt_ms(self) -> float:
        small = [e.ms for e in self._exchanges if _small(e)]
        # Without a small exchange the fastest large one bounds the round trip from above.
        return median(small) if small else min(e.ms for e in self._exchanges) / 2

    def _throughput_bps(self) -> float:
        rtt_ms = self._rtt_ms()
        rates = [
            e.size_bytes * 8e3 / max(e.ms - rtt_ms, 0.1 * e.ms)
            for e in self._exchanges
            if not _small(e)
        ]
        return median(rates) if rates else float("inf")


def _small(exchange: _Exchange) -> bool:
    return exchange.size_bytes <= _SMALL_BYTES


def _upper_quantile(values: list[float]) -> float:
    ordered = sorted(values) or [1.0]
    return ordered[int(_QUANTILE * (len(ordered) - 1))]  # rounds down: one outlier is not a link

"""What the cloud says about itself: times and precision per contract, its queue, formats. Pure."""

import math

from ..protos import fleet_pb2
from ..shared.codec.picture import SAID_BY_NONE, PictureFormat
from ..shared.manifest import Precision
from .duration import NEVER, Duration

_PRECISIONS = frozenset(map(str, Precision))
_WEIGHT = 0.1
_Z_95 = 1.6449
_UNLIKE_S = 30.0
"""For so long a contract is left alone that the cloud did not know or answered at length."""
_UNSEEN = Duration(50.0, 50.0**2)
"""Of a cloud that loads what is called for: it knows no times before, and must be called once."""
_MOST_MS = 3.6e6
"""An hour: no cloud is believed to say more, or less than nothing."""


class CloudTimes:
    """Times by contract, from the cloud's own account of each run, and how long its queue is."""

    def __init__(self) -> None:
        self._compute: dict[str, Duration] = {}
        self._precision: dict[str, Precision] = {}
        self._unlike_s: dict[str, float] = {}
        self._overlong_s: dict[str, float] = {}
        self._unseen = NEVER
        self.formats = SAID_BY_NONE
        """The picture formats that it reads."""
        self._queue_ms = 0.0
        self._queue_at_s = 0.0

    @property
    def known(self) -> bool:
        """True once the cloud has told of anything that it computes."""
        return bool(self._compute)

    def learn(self, state: fleet_pb2.ProbeResponse, *, now_s: float) -> None:
        """Takes what a probe brought back."""
        self._compute = {
            tail.contract: _through(sane_ms(tail.compute_p50_ms), sane_ms(tail.compute_p95_ms))
            for tail in state.tails
        }
        self._precision = {
            tail.contract: Precision(tail.precision)
            for tail in state.tails
            if tail.precision in _PRECISIONS
        }
        self._unseen = _UNSEEN if state.uptime_s > 0.0 else NEVER  # it is not just starting
        for contract in self._compute:
            self._unlike_s.pop(contract, None)
        said = frozenset(each for each in PictureFormat if each in state.picture_formats)
        self.formats = said or SAID_BY_NONE
        self.learn_queue(state.queue_forecast_ms, now_s=now_s)

    def lacks(self, contract: str, *, now_s: float) -> None:
        """The cloud has said that it does not know a contract; it may have another bundle."""
        self._compute.pop(contract, None)
        self._unlike_s[contract] = now_s

    def overlong(self, contract: str, *, now_s: float) -> None:
        """An answer was too long to be read. What came of it was in the way of all others."""
        self._overlong_s[contract] = now_s

    def learn_queue(self, queue_ms: float, *, now_s: float) -> None:
        """How long a request that arrived now would wait, as the cloud forecasts it."""
        self._queue_ms, self._queue_at_s = sane_ms(queue_ms), now_s

    def observe(self, contract: str, *, compute_ms: float, queue_ms: float, now_s: float) -> None:
        """One answer says what it took, and how long the queue is."""
        self.learn_queue(queue_ms, now_s=now_s)
        known = self._compute.get(contract)
        compute_ms = sane_ms(compute_ms)
        if known is None:
            self._compute[contract] = Duration(compute_ms, (0.3 * compute_ms) ** 2)
            return
        off_ms = compute_ms - known.mean_ms
        variance = (1 - _WEIGHT) * (known.variance + _WEIGHT * off_ms * off_ms)
        self._compute[contract] = Duration(known.mean_ms + _WEIGHT * off_ms, variance)

    def forecast(self, contract: str, *, now_s: float) -> Duration:
        """Waiting and computing; a tail never measured costs as much as the slowest one known.

        A queue is served while one looks away: what was forecast is what is left of it.
        """
        if now_s - self._overlong_s.get(contract, -math.inf) < _UNLIKE_S:
            return NEVER
        computing = self._compute.get(contract)
        if computing is None:
            if now_s - self._unlike_s.get(contract, -math.inf) < _UNLIKE_S:
                return NEVER
            computing = max(self._compute.values(), key=_mean_ms, default=self._unseen)
        waiting_ms = self._queue_ms - max(now_s - self._queue_at_s, 0.0) * 1e3
        if waiting_ms <= 0.0:
            return computing
        return computing.then(Duration(waiting_ms, (0.3 * waiting_ms) ** 2))

    def precision(self, contract: str) -> Precision:
        """What a tail computes in; a tail still to be loaded will be as the others are."""
        found = self._precision.get(contract)
        return found or next(iter(self._precision.values()), Precision.FLOAT32)


def _mean_ms(computing: Duration) -> float:
    return computing.mean_ms


def _through(p50_ms: float, p95_ms: float) -> Duration:
    spread_ms = max(p95_ms - p50_ms, 0.0) / _Z_95
    return Duration(p50_ms, spread_ms * spread_ms)


def sane_ms(ms: float) -> float:
    """What a cloud says, if it can be a time at all."""
    return min(max(ms, 0.0), _MOST_MS) if math.isfinite(ms) else _MOST_MS

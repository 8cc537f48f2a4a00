"""What the link to the cloud can do, learnt from what crossed it. Pure: no sockets, no clock.

An exchange that sends n kB and gets m kB back is modelled as

    t = rtt + up * (n + ahead) + down * m        up, down in ms per kB

where `ahead` is what of earlier exchanges had not yet left. The three coefficients are the state
of a Kalman filter (Kalman 1960) whose noise is relative: they wander with time, so that what was
learnt ages while nothing is sent, and every forecast is a mean with a variance, never a bare mean.

Concurrent exchanges share the link, first in, first out. A fluid queue keeps what is under way;
each answer proves that everything sent before it has passed, and sets the queue right again. An
exchange that is overdue tells as much: what is sent now waits behind it, and an outage that has
lasted for s seconds is expected to last about as long again. That holds for exchanges that were
given up as well, because their bytes are still under way, until an answer to a later one shows that
they passed.

One surprise is an odd exchange, and its weight is bounded. Two in a row the same way mean that the
link has changed: the filter then forgets how sure it was.
"""

import math
from collections import deque
from dataclasses import dataclass

from .duration import Duration

_RTT, _UP, _DOWN = range(3)
_PRIOR = (60.0, 2.0, 2.0)
"""ms, and ms per kB: 60 ms and 4 Mbit/s each way, of which next to nothing is believed."""
_PRIOR_SPREAD = (1.5, 2.0, 1.0)
_FLOOR = (0.05, 0.002, 0.002)
_WANDER = (0.10, 0.30, 0.15)
"""Relative drift of the coefficients in one second, one standard deviation."""
_MOST_DRIFT_S = 60.0
_NOISE_START, _NOISE_FLOOR, _NOISE_WEIGHT = 0.3, 0.05, 0.12
_MOST_NOISE = 1.0
_SURPRISE = 3.0
_Z_95 = 1.6449
_OVERDUE = 2.0
"""Standard deviations beyond its forecast after which an exchange counts as overdue."""


@dataclass(slots=True, eq=False)
class Exchange:
    """One exchange under way: what it sends, what went before it, and what was expected of it."""

    up_kb: float
    ahead_kb: float
    end_kb: float
    """Position of its last byte in all that was ever sent."""
    began_s: float
    due_s: float


@dataclass(frozen=True, slots=True)
class LinkReading:
    """The link as it stands. Each figure with the range that holds it in 8 of 10 cases."""

    rtt_ms: float
    rtt_low_ms: float
    rtt_high_ms: float
    up_bps: float
    up_low_bps: float
    up_high_bps: float
    down_bps: float
    exchanges: int
    idle_s: float
    waiting_bytes: int
    stalled_ms: float


@dataclass(frozen=True, slots=True)
class Transfer:
    """The link at one instant: how long an exchange begun now would take, by its size."""

    fixed_ms: float
    up_ms: float
    down_ms: float
    fixed_var: float
    up_var: float
    fixed_up_cov: float
    noise: float
    stall_ms: float

    def duration(self, up_bytes: float, down_bytes: float = 0.0) -> Duration:
        """Mean and variance of the time from sending to hearing back."""
        up_kb = up_bytes / 1e3
        mean = self.fixed_ms + self.up_ms * up_kb + self.down_ms * down_bytes / 1e3
        own = self.noise * mean
        variance = (
            self.fixed_var
            + up_kb * (2.0 * self.fixed_up_cov + up_kb * self.up_var)
            + own * own
            + self.stall_ms * self.stall_ms
        )
        return Duration(mean + self.stall_ms, variance)

    def forecast(self, up_p50: int, up_p95: int, *, down_bytes: float = 0.0) -> Duration:
        """The same for a number of bytes that is not known yet but for its median and its p95."""
        mean_ms, variance = self.duration(up_p50, down_bytes)
        spread_ms = self.up_ms * (up_p95 - up_p50) / (1e3 * _Z_95)
        return Duration(mean_ms, variance + spread_ms * spread_ms)


NO_LINK = Transfer(math.inf, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


class LinkEstimate:
    """Learns from exchanges, forecasts transfer times."""

    def __init__(self) -> None:
        self._x = list(_PRIOR)
        self._p = [
            [(_PRIOR[i] * _PRIOR_SPREAD[i]) ** 2 if i == j else 0.0 for j in range(3)]
            for i in range(3)
        ]
        self._noise2 = _NOISE_START**2
        self._surprises = 0
        self._seen = 0
        self._learnt_s = 0.0
        self._sent_kb = 0.0
        self._gone_kb = 0.0
        self._gone_at_s = 0.0
        self._proven_kb = 0.0
        self._unproven: deque[Exchange] = deque()
        """In the order they were sent: under way, or given up and not yet known to have passed."""

    @property
    def known(self) -> bool:
        """True once at least one exchange was seen."""
        return self._seen > 0

    @property
    def unproven(self) -> int:
        """Exchanges sent of which nothing is known yet, those that were given up among them."""
        return len(self._unproven)

    def begin(self, up_bytes: int, *, now_s: float, cloud_ms: float = 0.0) -> Exchange:
        """Something is sent now; the cloud is expected to take `cloud_ms` of the time."""
        self._flow(now_s)
        up_kb = up_bytes / 1e3
        ahead_kb = self._sent_kb - self._gone_kb
        expected = self.transfer(now_s=now_s).duration(up_bytes)
        spread_ms = math.sqrt(expected.variance)
        due_s = now_s + (expected.mean_ms + _OVERDUE * spread_ms + cloud_ms) / 1e3
        self._sent_kb += up_kb
        exchange = Exchange(up_kb, ahead_kb, self._sent_kb, now_s, due_s)
        self._unproven.append(exchange)
        return exchange

    def finish(
        self, exchange: Exchange, *, now_s: float, down_bytes: int = 0, cloud_ms: float = 0.0
    ) -> None:
        """It was answered; the cloud kept it for `cloud_ms`, by its own account.

        A cloud that claims more than the whole time is not believed.
        """
        whole_ms = (now_s - exchange.began_s) * 1e3
        ms = whole_ms - cloud_ms if 0.0 <= cloud_ms < whole_ms else whole_ms
        ms = max(ms, 0.01)
        down_kb = down_bytes / 1e3
        self._drift(now_s)
        self._learn((1.0, exchange.up_kb + exchange.ahead_kb, down_kb), ms)
        self._seen += 1
        if exchange.end_kb > self._proven_kb:
            self._prove(exchange, now_s=now_s, back_ms=self._x[_RTT] / 2 + self._x[_DOWN] * down_kb)

    def _prove(self, exchange: Exchange, *, now_s: float, back_ms: float) -> None:
        """Whatever was sent up to this exchange has passed."""
        self._proven_kb = exchange.end_kb
        while self._unproven and self._unproven[0].end_kb <= exchange.end_kb:
            self._unproven.popleft()
        behind_kb = self._sent_kb - exchange.end_kb
        self._gone_kb = exchange.end_kb + min(behind_kb, back_ms / self._x[_UP])
        self._gone_at_s = now_s

    def broken(self) -> None:
        """The connection is gone, and what was under way with it."""
        self._unproven.clear()
        self._gone_kb = self._proven_kb = self._sent_kb

    def stall_ms(self, *, now_s: float) -> float:
        """For how long the oldest exchange has been overdue; 0 if none is."""
        if not self._unproven:
            return 0.0
        return max(0.0, (now_s - self._unproven[0].due_s) * 1e3)

    def transfer(self, *, now_s: float) -> Transfer:
        """The link as it is now; `NO_LINK` while nothing has crossed it."""
        if not self._seen:
            return NO_LINK
        self._flow(now_s)
        rtt, up, down = self._x
        p = self._p
        ahead = self._sent_kb - self._gone_kb
        drift = min(max(now_s - self._learnt_s, 0.0), _MOST_DRIFT_S)
        up_var = p[_UP][_UP] + drift * (_WANDER[_UP] * up) ** 2
        rtt_var = p[_RTT][_RTT] + drift * (_WANDER[_RTT] * rtt) ** 2
        cov = p[_RTT][_UP]
        return Transfer(
            fixed_ms=rtt + up * ahead,
            up_ms=up,
            down_ms=down,
            fixed_var=max(rtt_var + ahead * (2.0 * cov + ahead * up_var), 0.0),
            up_var=up_var,
            fixed_up_cov=cov + ahead * up_var,
            noise=math.sqrt(self._noise2),
            stall_ms=self.stall_ms(now_s=now_s),
        )

    def reading(self, *, now_s: float) -> LinkReading:
        """For people and dashboards."""
        if not self._seen:
            inf = math.inf
            return LinkReading(inf, 0.0, inf, 0.0, 0.0, inf, 0.0, 0, inf, 0, 0.0)
        self._flow(now_s)
        rtt, up, down = self._x
        rtt_sd, up_sd = math.sqrt(self._p[_RTT][_RTT]), math.sqrt(self._p[_UP][_UP])
        rtt_low, rtt_high = Duration(rtt, rtt_sd**2).range()
        up_low, up_high = Duration(up, up_sd**2).range()
        return LinkReading(
            rtt_ms=rtt,
            rtt_low_ms=rtt_low,
            rtt_high_ms=rtt_high,
            up_bps=8e6 / up,
            up_low_bps=8e6 / up_high,
            up_high_bps=8e6 / up_low,
            down_bps=8e6 / down,
            exchanges=self._seen,
            idle_s=max(now_s - self._learnt_s, 0.0),
            waiting_bytes=round((self._sent_kb - self._gone_kb) * 1e3),
            stalled_ms=self.stall_ms(now_s=now_s),
        )

    def _flow(self, now_s: float) -> None:
        """Lets the fluid queue drain until now."""
        elapsed_ms = max(now_s - self._gone_at_s, 0.0) * 1e3
        self._gone_kb = min(self._sent_kb, self._gone_kb + elapsed_ms / self._x[_UP])
        self._gone_at_s = max(now_s, self._gone_at_s)

    def _drift(self, now_s: float) -> None:
        """The coefficients wander: what is known of them ages."""
        elapsed_s = min(max(now_s - self._learnt_s, 0.0), _MOST_DRIFT_S)
        for i in range(3):
            self._p[i][i] += elapsed_s * (_WANDER[i] * self._x[i]) ** 2
        self._learnt_s = max(now_s, self._learnt_s)

    def _learn(self, h: tuple[float, float, float], ms: float) -> None:
        """One step of the filter."""
        x, p = self._x, self._p
        ph = [p[i][0] * h[0] + p[i][1] * h[1] + p[i][2] * h[2] for i in range(3)]
        expected = h[0] * x[0] + h[1] * x[1] + h[2] * x[2]
        own = self._noise2 * expected * expected
        spread2 = h[0] * ph[0] + h[1] * ph[1] + h[2] * ph[2] + own
        off = ms - expected
        z = off / math.sqrt(spread2)
        if abs(z) > _SURPRISE and self._seen:
            same_way = z * self._surprises > 0
            self._surprises = (self._surprises if same_way else 0) + (1 if z > 0 else -1)
            if abs(self._surprises) >= 2:  # the link is another one now
                grow = (z / _SURPRISE) ** 2
                for i in range(3):
                    p[i] = [grow * value for value in p[i]]
                self._surprises = 0
                self._learn(h, ms)
                return
            off = math.copysign(_SURPRISE * math.sqrt(spread2), off)
        else:
            self._surprises = 0
        relative = min(abs(off) / expected, _MOST_NOISE)
        self._noise2 += _NOISE_WEIGHT * (relative * relative - self._noise2)
        self._noise2 = max(self._noise2, _NOISE_FLOOR**2)
        gain = [each / spread2 for each in ph]
        for i in range(3):
            x[i] = max(x[i] + gain[i] * off, _FLOOR[i])
        self._p = [[p[i][j] - gain[i] * ph[j] for j in range(3)] for i in range(3)]
        for i in range(3):
            self._p[i][i] = max(self._p[i][i], (1e-3 * x[i]) ** 2)

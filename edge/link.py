"""What the link to the cloud can do, learnt from what crossed it. Pure: no sockets, no clock.

An exchange that sends n kB and gets m kB back is modelled as

    t = rtt + up * (n + ahead) + down * m        up, down in ms per kB

where `ahead` is what of earlier exchanges had not yet left. The logarithms of the three
coefficients are the state of an extended Kalman filter (Kalman 1960; Jazwinski 1970) that is told
the logarithm of each time: what a link does is off by factors. The coefficients wander, so that
what was learnt ages while nothing is sent, and every forecast is a mean with a variance, never a
bare mean. How far the fixed part and the upload are off by nature is learnt apart.

Concurrent exchanges share the link, first in, first out. A fluid queue keeps what is under way;
each answer proves that everything sent before it has passed, and sets the queue right again. An
exchange that is overdue says that nothing drains: what is sent now waits behind all that is not
proven, and an outage that has lasted for s seconds is expected to last about as long again. That
holds for exchanges that were given up as well, because their bytes are still under way, until an
answer to a later one shows that they passed.

What was sent while the one before it had not yet left stood behind it. Their answers then come as
far apart as the link took for the bytes of the later one, whatever the round trip is, which is how
packet pairs tell a rate (Keshav, SIGCOMM 1991); its whole time tells nothing more.

What a link does with a few bytes says little of many: a size is taken to need the longer the
further it lies beyond what has lately passed, and less is tried after what took too long. So sizes
grow step by step and shrink by halves, as TCP's window does (Jacobson, SIGCOMM 1988).

A round trip is no longer than the quickest exchanges of the last seconds, but for jitter: what took
longer stood in a queue, and is the upload's (Cardwell et al., BBR, ACM Queue 2016). Were it taken
for the link's own, bytes would look as if they cost nothing just when they are what costs.

One surprise is an odd exchange, and its weight is bounded. Two in a row the same way mean that the
link has changed: the filter then forgets how sure it was. Exchanges that were under way in the same
outage are one surprise, not many.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass

from .rate import Gaps, Rate
from .transfer import NO_LINK, Transfer

_RTT, _UP, _DOWN = range(3)
_PRIOR = (60.0, 2.0, 2.0)
"""ms, and ms per kB: 60 ms and 4 Mbit/s each way, of which next to nothing is believed."""
_PRIOR_SPREAD = (1.5, 1.5, 0.5)
_MOST_SPREAD = 1.5
_WANDER = (0.10, 0.30, 0.05)
"""Drift of the logarithms in one second, one standard deviation."""
_MOST_DRIFT_S = 60.0
_NOISE_START, _NOISE_FLOOR, _NOISE_WEIGHT = 0.3, 0.05, 0.12
_SURPRISE = 3.0
_Z_80 = 1.2816
_CHANGED = 0.5
"""How unsure the coefficients are at least once the link has changed."""
_UNCLEAN_NOISE = 1.0
_PARTIAL_NOISE = 0.3
_CENSORED = 1.25
_LEAST_REACH_KB, _REACH_S = 1.0, 600.0
_MOSTLY_UP = 0.5
_HARDLY_LESS = 0.5
"""A size of so much of what lately passed says, when it is late, something of the latter."""
_QUICKEST_S, _JITTER, _LEAST_JITTER_MS = 10.0, 0.25, 10.0
"""How long a quick exchange bounds the round trip, which may lie above it by jitter: the link's
own, as a share of it, or that of the processors at its ends."""
_MOST_DUE_MS = 5_000.0
_MOST_UNPROVEN = 1_024
"""Kept of what was sent and is not known to have passed: a cloud may answer nothing for days."""
_OVERDUE = 2.0
"""Standard deviations beyond its forecast after which an exchange counts as overdue."""


@dataclass(slots=True, eq=False)
class Exchange:
    """One exchange under way: what it sends, what went before it, and when it is due.

    `end_kb` is the position of its last byte in all that was ever sent. `clean`: nothing was
    overdue when it began, and its connection was there. `mostly_up`: its upload should take half as
    long as the round trip, or longer, and may be why it is late.
    """

    up_kb: float
    ahead_kb: float
    end_kb: float
    began_s: float
    due_s: float
    clean: bool
    mostly_up: bool


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


class LinkEstimate:
    """Learns from exchanges, forecasts transfer times."""

    def __init__(self) -> None:
        self._x = [math.log(value) for value in _PRIOR]
        self._p = [[_PRIOR_SPREAD[i] ** 2 if i == j else 0.0 for j in range(3)] for i in range(3)]
        self._fixed_noise2 = self._up_noise2 = _NOISE_START**2
        self._surprise = 0.0
        self._seen = 0
        self._reach_kb = self._reach_at_s = 0.0
        self._shortened_s = -math.inf
        self._learnt_s = 0.0
        self._stalled_until_s = -math.inf
        self._begun, self._gaps = Rate(), Gaps()
        self._lately: deque[tuple[float, float]] = deque()
        self._in_order: list[float] = []
        """Times in ms with the s of their ends, and the same by length."""
        self._most_rtt_ms = math.inf
        self._sent_kb = self._gone_kb = self._proven_kb = 0.0
        self._gone_at_s = 0.0
        self._come_s = -math.inf
        """When the last of what is proven had come to the cloud, but for the way back."""
        self._unproven: deque[Exchange] = deque()
        """In the order they were sent: under way, or given up and not yet known to have passed."""

    @property
    def unproven(self) -> int:
        """Exchanges sent of which nothing is known yet, those that were given up among them."""
        return len(self._unproven)

    @property
    def unsure(self) -> bool:
        """Whether the last exchange was a surprise: the next one says if the link has changed."""
        return self._surprise != 0.0

    def begin(
        self, up_bytes: int, *, now_s: float, cloud_ms: float = 0.0, connects: bool = False
    ) -> Exchange:
        """Something is sent now; the cloud is expected to take `cloud_ms` of the time.

        What `connects` first takes further round trips for that, and teaches little of one.
        """
        up_kb = up_bytes / 1e3
        ahead_kb = self._ahead_kb(now_s)
        stall_ms = self.stall_ms(now_s=now_s)
        here = self._transfer(now_s, stall_ms=0.0)
        mostly_up = here.up_ms * (up_kb + ahead_kb) > _MOSTLY_UP * here.rtt_ms
        # Longer than as long again an outage is not waited for without a word.
        due_ms = here.duration(up_bytes).quantile(_OVERDUE) + stall_ms + cloud_ms
        due_s = now_s + min(due_ms, _MOST_DUE_MS) / 1e3
        clean = stall_ms == 0.0 and not connects
        self._begun.count(now_s=now_s)
        self._gaps.count(now_s=now_s)
        self._sent_kb += up_kb
        exchange = Exchange(up_kb, ahead_kb, self._sent_kb, now_s, due_s, clean, mostly_up)
        self._unproven.append(exchange)
        if len(self._unproven) > _MOST_UNPROVEN:
            del self._unproven[1]  # the oldest says since when nothing passes
        return exchange

    def finish(
        self,
        exchange: Exchange,
        *,
        now_s: float,
        down_bytes: int = 0,
        cloud_ms: float = 0.0,
        rest_bytes: float = 0.0,
    ) -> None:
        """It was answered; the cloud kept it for `cloud_ms`, by its own account.

        A cloud that claims more than the whole time is not believed. `rest_bytes` of it had not yet
        come then: about so many, which teaches less, and they stay under way.
        """
        whole_ms = (now_s - exchange.began_s) * 1e3
        ms = whole_ms - cloud_ms if 0.0 <= cloud_ms < whole_ms else whole_ms
        down_kb = down_bytes / 1e3
        self._bound_rtt(max(ms, 0.01), now_s)
        overdue = now_s > exchange.due_s
        rest_kb = min(rest_bytes / 1e3, exchange.up_kb)
        size = (1.0, exchange.up_kb - rest_kb + exchange.ahead_kb, down_kb)
        self._drift(now_s)
        rtt, _, down = map(math.exp, self._x)
        come_s = now_s - (whole_ms - ms + down * down_kb) / 1e3
        behind_kb = exchange.end_kb - rest_kb - self._proven_kb
        if not exchange.clean:  # how long the outage lasted, or connecting took, is in it
            self._learn(size, max(ms, 0.01), noise=_UNCLEAN_NOISE)
        elif rest_kb:
            self._learn(size, max(ms, 0.01), noise=_PARTIAL_NOISE)
        elif behind_kb > 0.0 and exchange.began_s < self._come_s - rtt / 1e3:
            # Begun before what is ahead had left: the link has had nothing else to do since.
            apart_ms = max((come_s - self._come_s) * 1e3, 0.01)
            jitter = math.sqrt(2.0 * self._fixed_noise2) * rtt / apart_ms
            self._learn((0.0, behind_kb, 0.0), apart_ms, noise=jitter, telling=True)
        elif not (overdue and exchange.began_s < self._stalled_until_s):
            self._learn(size, max(ms, 0.01))
        if overdue:
            self._stalled_until_s = now_s
            self._shorten(exchange, now_s)
        else:
            self._reach(max(self._reach_at(now_s), size[_UP]), now_s)
        self._seen += 1
        if self._unproven and self._unproven[0].end_kb <= exchange.end_kb:
            since_ms = math.exp(self._x[_RTT]) + (now_s - come_s) * 1e3
            self._prove(exchange.end_kb - rest_kb, now_s=now_s, since_ms=since_ms)
            self._come_s = come_s
            if rest_kb:
                exchange.up_kb = rest_kb
                due = self._transfer(now_s, stall_ms=0.0).duration(rest_bytes)
                exchange.due_s = now_s + min(due.quantile(_OVERDUE), _MOST_DUE_MS) / 1e3

    def abandon(self, exchange: Exchange, *, now_s: float, cloud_ms: float = 0.0) -> None:
        """It was given up. Had it taken no longer than expected, it would have been answered.

        What is only known to have taken longer counts as longer by a part: learning from answers
        alone would be learning from the quick ones. Its bytes stay under way.
        """
        ms = (now_s - exchange.began_s) * 1e3 - cloud_ms
        size = (1.0, exchange.up_kb + exchange.ahead_kb, 0.0)
        if ms > self._expected_ms(size):
            self._shorten(exchange, now_s)
        alone = exchange.clean and exchange.began_s >= self._stalled_until_s
        if alone and self._seen and ms > self._expected_ms(size):
            self._drift(now_s)
            self._learn(size, _CENSORED * ms)
            self._stalled_until_s = now_s

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
        return self._transfer(now_s, stall_ms=self.stall_ms(now_s=now_s))

    def _transfer(self, now_s: float, *, stall_ms: float) -> Transfer:
        if not self._seen:
            return NO_LINK
        rtt, up, down = map(math.exp, self._x)
        p = self._p
        drift_s = min(max(now_s - self._learnt_s, 0.0), _MOST_DRIFT_S)
        up_var = _aged(p[_UP][_UP], drift_s, _WANDER[_UP])
        return Transfer(
            rtt_ms=rtt,
            ahead_ms=up * self._ahead_kb(now_s),
            up_ms=up,
            down_ms=down,
            rtt_var=_aged(p[_RTT][_RTT], drift_s, _WANDER[_RTT]),
            up_var=up_var,
            rtt_up_cov=p[_RTT][_UP],
            fixed_noise2=self._fixed_noise2,
            up_noise2=self._up_noise2,
            stall_ms=stall_ms,
            rate_hz=self._begun.hz(now_s=now_s),
            reach_kb=self._reach_at(now_s),
            waited=min(0.5 * (self._gaps.variation2 + self._up_noise2 + up_var), 1.0),
        )

    def reading(self, *, now_s: float) -> LinkReading:
        """For people and dashboards."""
        if not self._seen:
            inf = math.inf
            return LinkReading(inf, 0.0, inf, 0.0, 0.0, inf, 0.0, 0, inf, 0, 0.0)
        here = self.transfer(now_s=now_s)
        rtt_off, up_off = (
            math.exp(_Z_80 * math.sqrt(max(each, 0.0))) for each in (here.rtt_var, here.up_var)
        )
        up_bps = 8e6 / here.up_ms
        return LinkReading(
            rtt_ms=here.rtt_ms,
            rtt_low_ms=here.rtt_ms / rtt_off,
            rtt_high_ms=here.rtt_ms * rtt_off,
            up_bps=up_bps,
            up_low_bps=up_bps / up_off,
            up_high_bps=up_bps * up_off,
            down_bps=8e6 / here.down_ms,
            exchanges=self._seen,
            idle_s=max(now_s - self._learnt_s, 0.0),
            waiting_bytes=round(here.ahead_ms / here.up_ms * 1e3),
            stalled_ms=here.stall_ms,
        )

    def _ahead_kb(self, now_s: float) -> float:
        """What was sent and has not passed: by the fluid queue, and all of it in an outage."""
        rtt_ms, up = math.exp(self._x[_RTT]), math.exp(self._x[_UP])
        elapsed_ms = max(now_s - self._gone_at_s, 0.0) * 1e3
        self._gone_kb = min(self._sent_kb, self._gone_kb + elapsed_ms / up)
        self._gone_at_s = max(now_s, self._gone_at_s)
        flowing_kb = self._sent_kb - self._gone_kb
        if (stall_ms := self.stall_ms(now_s=now_s)) == 0.0:
            return flowing_kb
        stuck = stall_ms / (stall_ms + rtt_ms)
        return flowing_kb + stuck * (self._sent_kb - self._proven_kb - flowing_kb)

    def _reach(self, kb: float, now_s: float) -> None:
        self._reach_kb, self._reach_at_s = kb, now_s

    def _shorten(self, exchange: Exchange, now_s: float) -> None:
        """What was sent since the last such disappointment took too long: less is tried.

        Half of what had to pass, if that is what should have taken the time, or if hardly more
        lately did: a few bytes that come late say nothing of many.
        """
        reach_kb, late_kb = self._reach_at(now_s), exchange.up_kb + exchange.ahead_kb
        telling = exchange.mostly_up or late_kb > _HARDLY_LESS * reach_kb
        if telling and exchange.began_s >= self._shortened_s:
            self._shortened_s = now_s
            self._reach(min(reach_kb, late_kb) / 2, now_s)

    def _reach_at(self, now_s: float) -> float:
        """How much has lately passed at a time and when it was expected; it fades."""
        faded = math.exp(min(self._reach_at_s - now_s, 0.0) / _REACH_S)
        return max(self._reach_kb * faded, _LEAST_REACH_KB)

    def _bound_rtt(self, ms: float, now_s: float) -> None:
        """Keeps the times of the last seconds; the quickest but one bounds the round trip."""
        lately, in_order = self._lately, self._in_order
        while lately and lately[0][0] < now_s - _QUICKEST_S:
            del in_order[bisect_left(in_order, lately.popleft()[1])]
        lately.append((now_s, ms))
        insort(in_order, ms)
        least_ms = in_order[1] if len(in_order) > 1 else math.inf
        self._most_rtt_ms = least_ms + max(_JITTER * least_ms, _LEAST_JITTER_MS)

    def _prove(self, end_kb: float, *, now_s: float, since_ms: float) -> None:
        """Whatever was sent up to there has passed, so long ago."""
        self._proven_kb = end_kb
        while self._unproven and self._unproven[0].end_kb <= end_kb:
            self._unproven.popleft()
        behind_kb = self._sent_kb - end_kb
        self._gone_kb = end_kb + min(behind_kb, since_ms / math.exp(self._x[_UP]))
        self._gone_at_s = now_s

    def _drift(self, now_s: float) -> None:
        """The coefficients wander: what is known of them ages."""
        drift_s = min(max(now_s - self._learnt_s, 0.0), _MOST_DRIFT_S)
        for i in range(3):
            self._p[i][i] = _aged(self._p[i][i], drift_s, _WANDER[i])
        self._learnt_s = max(now_s, self._learnt_s)

    def _expected_ms(self, size: tuple[float, float, float]) -> float:
        return sum(size[i] * math.exp(self._x[i]) for i in range(3))

    def _learn(
        self,
        size: tuple[float, float, float],
        ms: float,
        *,
        noise: float = 0.0,
        telling: bool = False,
    ) -> None:
        """One step of the filter, told the time of an exchange of this size (1, up kB, down kB).

        With `noise`, a standard deviation of its logarithm, it teaches less, and is no surprise
        unless it is `telling`.
        """
        # Written out: three by three loops would take four times as long.
        (x0, x1, x2), p = self._x, self._p
        p0, p1, p2 = p
        rtt_ms, up_ms, down_ms = (
            size[0] * math.exp(x0), size[1] * math.exp(x1), size[2] * math.exp(x2)
        )  # fmt: skip
        expected_ms = rtt_ms + up_ms + down_ms
        h0, h1, h2 = rtt_ms / expected_ms, up_ms / expected_ms, down_ms / expected_ms
        ph0 = p0[0] * h0 + p0[1] * h1 + p0[2] * h2
        ph1 = p1[0] * h0 + p1[1] * h1 + p1[2] * h2
        ph2 = p2[0] * h0 + p2[1] * h1 + p2[2] * h2
        fixed_var = (h0 + h2) ** 2 * self._fixed_noise2
        up_var = h1**2 * self._up_noise2
        known2 = h0 * ph0 + h1 * ph1 + h2 * ph2
        spread2 = known2 + fixed_var + up_var + noise * noise
        off = math.log(ms / expected_ms)
        surprise = off if abs(off) > _SURPRISE * math.sqrt(spread2) else 0.0
        telling = telling or not noise
        if telling and surprise * self._surprise > 0.0:
            # The second the same way: the link is another one now.
            self._surprise = 0.0
            for i in (_RTT, _UP):
                p[i][i] = max(p[i][i], _CHANGED**2)
            self._learn(size, ms, noise=noise, telling=True)
            return
        if surprise:
            off = math.copysign(_SURPRISE * math.sqrt(spread2), off)
        self._surprise = surprise if telling else self._surprise
        self._fixed_noise2 = _noise2(self._fixed_noise2, fixed_var, spread2, off * off)
        self._up_noise2 = _noise2(self._up_noise2, up_var, spread2, off * off)
        g0, g1, g2 = ph0 / spread2, ph1 / spread2, ph2 / spread2
        self._x = [min(x0 + g0 * off, math.log(self._most_rtt_ms)), x1 + g1 * off, x2 + g2 * off]
        self._p = [
            [p0[0] - g0 * ph0, p0[1] - g0 * ph1, p0[2] - g0 * ph2],
            [p1[0] - g1 * ph0, p1[1] - g1 * ph1, p1[2] - g1 * ph2],
            [p2[0] - g2 * ph0, p2[1] - g2 * ph1, p2[2] - g2 * ph2],
        ]


def _aged(variance: float, seconds: float, wander: float) -> float:
    """What is known of a coefficient, so much later."""
    return min(max(variance, 1e-6) + seconds * wander * wander, _MOST_SPREAD**2)


def _noise2(now: float, variance: float, spread2: float, off2: float) -> float:
    """The square of what a part of the time is off by, after one more exchange.

    Of the square that an exchange was off by, a part takes the blame that its variance has in the
    whole, and learns the more the larger that is (the expectation step of EM).
    """
    share = variance / spread2
    if share <= 0.0:
        return now
    blamed = share * share * off2 + variance * (1.0 - share)
    return max(now + _NOISE_WEIGHT * share * (now * blamed / variance - now), _NOISE_FLOOR**2)

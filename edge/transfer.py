"""How long an exchange would take that is begun at one instant, by its size. Pure: no clock.

A size is judged by the queue that it makes if all take it. That is the shorter the more regularly
they come and the better the rate is known: the wait is that of an M/M/1 queue times the mean of the
squared coefficients of variation of gaps and service times (Kingman 1961), and no longer than its
own. What is not known of the rate counts as variation of the latter.
"""

import math

import msgspec

from .duration import NEVER, Duration
from .rate import crowd_ms

_BEYOND = 0.5
"""A size n times beyond what was tried is taken to need longer by this power of n."""
_Z_95 = 1.6449


class Transfer(msgspec.Struct, frozen=True, gc=False):
    """The link at one instant: how long an exchange begun now would take, by its size.

    Variances and the covariance are those of the coefficients' logarithms. `waited` is how much of
    an M/M/1 queue's wait there is.
    """

    rtt_ms: float
    ahead_ms: float
    up_ms: float
    down_ms: float
    rtt_var: float
    up_var: float
    rtt_up_cov: float
    fixed_noise2: float
    up_noise2: float
    stall_ms: float
    rate_hz: float
    reach_kb: float
    waited: float

    def duration(self, up_bytes: float) -> Duration:
        """Mean and variance of the time from sending to hearing back."""
        return self.forecast(up_bytes, up_bytes)

    def forecast(self, up_p50: float, up_p95: float) -> Duration:
        """The same for a number of bytes that is not known yet but for its median and its p95."""
        if self.rtt_ms == math.inf:
            return NEVER
        own_ms = self.up_ms * up_p50 / 1e3
        if (beyond := up_p50 / (1e3 * self.reach_kb)) > 1.0:
            own_ms *= beyond**_BEYOND
        # A size is judged by what becomes of the link when every request takes it:
        # what suits one may stand before all the others.
        load = self.rate_hz * own_ms / 1e3
        up_ms = self.ahead_ms + own_ms + crowd_ms(own_ms, load=load, waited=self.waited)
        ms = self.rtt_ms + up_ms
        up = up_ms / ms
        fixed = 1.0 - up
        spread2 = (
            fixed * fixed * (self.rtt_var + self.fixed_noise2)
            + 2.0 * fixed * up * self.rtt_up_cov
            + up * up * (self.up_var + self.up_noise2)
        )
        # ms is the median; a lognormal's mean lies above it.
        mean_ms = ms * math.exp(0.5 * spread2)
        spread_ms = self.up_ms * ((up_p95 - up_p50) / _Z_95) / 1e3
        stall_ms, own_variance = self.stall_ms, mean_ms * mean_ms * math.expm1(spread2)
        return Duration(
            mean_ms + stall_ms, own_variance + stall_ms * stall_ms + spread_ms * spread_ms
        )

    def least_ms(self, up_p50: float) -> float:
        """What no forecast for so many bytes lies below."""
        return self.rtt_ms + self.ahead_ms + self.stall_ms + self.up_ms * up_p50 / 1e3

    @property
    def way_back_ms(self) -> float:
        """What of a deadline is to be left for an answer: the fixed part, late in 1 of 20 cases.

        It has the way of the first byte as well, after which the cloud's own clock starts.
        """
        return self.rtt_ms * math.exp(_Z_95 * math.sqrt(self.rtt_var + self.fixed_noise2))


NO_LINK = Transfer(math.inf, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0)

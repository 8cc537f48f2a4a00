"""How long something will take, as a distribution: a mean and a variance, read as lognormal. Pure.

Means and variances add up (stages after one another, taken as independent), and a lognormal with
the sum's moments is read from them (Fenton, "The sum of log-normal probability distributions in
scatter transmission systems", 1960): times are positive and their tails are on the late side.
"""

import math

import msgspec

_SQRT_HALF = math.sqrt(0.5)
_NOTHING_MS = 1e-6
"""A nanosecond: below it there is nothing to be spread."""


class Duration(msgspec.Struct, frozen=True, gc=False):
    """A time in ms; `variance` in ms squared. An infinite mean never comes."""

    mean_ms: float
    variance: float = 0.0

    def then(self, other: "Duration") -> "Duration":
        """Both, one after the other.

        >>> Duration(3.0, 4.0).then(Duration(1.0, 5.0))
        Duration(mean_ms=4.0, variance=9.0)
        """
        return Duration(self.mean_ms + other.mean_ms, self.variance + other.variance)

    def within(self, ms: float) -> float:
        """The probability that it takes at most so long.

        >>> Duration(10.0).within(9.9), Duration(10.0).within(10.0)
        (0.0, 1.0)
        >>> round(Duration(10.0, 25.0).within(20.0), 3)
        0.956
        """
        mean, variance = self.mean_ms, self.variance
        if ms <= 0.0 < mean or mean == math.inf:
            return 0.0
        if variance <= 0.0 or mean <= _NOTHING_MS:
            return 1.0 if ms >= mean else 0.0
        spread2 = math.log1p(variance / (mean * mean))
        if spread2 == 0.0:
            return 1.0 if ms >= mean else 0.0
        if (share := ms / mean) <= 0.0:  # too small a number
            return 0.0
        z = (math.log(share) + 0.5 * spread2) / math.sqrt(spread2)
        return 0.5 * math.erfc(-z * _SQRT_HALF)

    def quantile(self, z: float) -> float:
        """The time that `z` standard normal deviations stand for; 2.326 is the 99th percentile.

        >>> round(Duration(10.0, 25.0).quantile(2.326), 1)
        26.8
        """
        mean = self.mean_ms
        if self.variance <= 0.0 or mean <= _NOTHING_MS or mean == math.inf:
            return mean
        spread2 = math.log1p(self.variance / (mean * mean))
        return math.exp(math.log(mean) - 0.5 * spread2 + z * math.sqrt(spread2))


NO_TIME = Duration(0.0)
NEVER = Duration(math.inf)

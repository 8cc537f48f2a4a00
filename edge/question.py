"""What is asked of a policy: which plan to take, for this request and now."""

from typing import TYPE_CHECKING, NamedTuple

from .demand import ANYTHING, Demand
from .duration import NO_TIME, Duration

if TYPE_CHECKING:
    from .two_ways import Ways


class Sight(NamedTuple):
    """What the light model's answer says: it agrees with probability `agrees`.

    `enough`: it is as sure as the caller demands.
    """

    agrees: float
    enough: bool = False


class Question(NamedTuple):
    """What there is to know of a request but for its options.

    Without a `sight` the light model has not answered yet; `sure_share` of its answers will be as
    sure as the caller demands. `spent_bytes` have left the device within the last hour. A ms of
    the device's time costs `price_per_ms` of agreement: that of others. `way` is what the shortest
    message needs to the cloud and back: no remote option is done sooner. The light model has to
    start `net_ms` before the end, or `safe_net_ms` where an answer is as good as sure to be in
    time; what comes before that spares it. `ways` are those in which a board may be used that has
    no room for everything.
    """

    left_ms: float
    demand: Demand = ANYTHING
    sight: Sight | None = None
    spent_bytes: float = 0.0
    sure_share: float = 0.0
    price_per_ms: float = 0.0
    way: Duration = NO_TIME
    net_ms: float = 0.0
    safe_net_ms: float = 0.0
    ways: "Ways | None" = None

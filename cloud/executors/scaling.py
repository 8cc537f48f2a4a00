"""How many replicas there should be: more under pressure, fewer when they idle. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...shared.errors import ConfigError
from .executor import Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Between `least` and `most` replicas.

    More are started when requests are refused for want of time, or would wait `wait_ms`; one that
    has run nothing for `idle_s` is let go.
    """

    least: int
    most: int
    idle_s: float = 60.0
    wait_ms: float = 50.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most or self.most < 1:
            raise ConfigError(
                f"{self.least} to {self.most} workers cannot be: "
                "0 <= --least-workers <= --workers, and one at least"
            )
        if not (self.idle_s >= 0 and self.wait_ms >= 0):
            raise ConfigError("idle_s and wait_ms must not be negative")

    @property
    def elastic(self) -> bool:
        return self.least < self.most


def missing(
    bounds: Bounds, demand: Demand, *, refused_before: int, ready: int, starting: int
) -> int:
    """How many more to start.

    Under pressure as many again as there are, once those that were asked for before are there:
    0, 1, 2, 4 ... so that a burst is met within a few starts and a wrong guess costs one of them.
    """
    there = ready + starting
    if there < bounds.least:
        return bounds.least - there
    waits = demand.unanswered > 0 and (ready == 0 or demand.forecast_ms > bounds.wait_ms)
    if starting or not (waits or demand.refused > refused_before):
        return 0
    return min(max(ready, 1), bounds.most - there)


def superfluous(bounds: Bounds, idle_s: Sequence[float], *, starting: int) -> int:
    """How many to let go of those that have run nothing for so long (0: they run something)."""
    if starting:
        return 0
    idlers = sum(1 for each in idle_s if each >= bounds.idle_s and each > 0)
    return max(0, min(idlers, len(idle_s) - bounds.least))

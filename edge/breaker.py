"""A circuit breaker for the cloud (Nygard, Release It!, chapter 5). Pure: the clock is an argument.

Closed: requests pass. A failure opens it at once: the device has an answer of its own, so trying a
dead cloud buys nothing. Open: nothing passes but the uplink's own probes, one per interval, and the
first that succeeds closes it again.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Breaker:
    """Open or closed, since when, and why."""

    opened_at_s: float | None = None
    reason: str = "never connected"
    openings: int = 0

    @property
    def closed(self) -> bool:
        return self.opened_at_s is None

    def fail(self, reason: str, *, now_s: float) -> None:
        """The cloud failed: open, or stay open since the first failure."""
        self.reason = reason
        if self.opened_at_s is None:
            self.opened_at_s = now_s
            self.openings += 1

    def succeed(self) -> None:
        """The cloud answered: close."""
        self.opened_at_s = None

"""Budgets and deadlines: how much time a caller allows, and the instant at which it ends."""

import math
import time
from collections.abc import Callable

import msgspec

from .errors import BudgetError

Clock = Callable[[], float]
"""Returns monotonic seconds; passed in wherever time matters, so that tests can hold it still."""

monotonic: Clock = time.monotonic

MAX_BUDGET_MS = 3_600_000.0
"""One hour. A larger budget is a mistake in units more often than a wish."""


_GRAINS = 5
"""As written a budget may be a grain more or a little less than it was meant: so many grains are
taken for the same, around each multiple of them."""


def check_budget_ms(budget_ms: float) -> float:
    """The budget itself, or BudgetError if it is not a time between 0 (excluded) and an hour."""
    if not math.isfinite(budget_ms) or budget_ms <= 0:
        raise BudgetError(f"{budget_ms:g} ms; it must be above 0")
    if budget_ms > MAX_BUDGET_MS:
        raise BudgetError(f"{budget_ms:.10g} ms; at most {MAX_BUDGET_MS:.0f}, an hour, are taken")
    return budget_ms


class Deadline(msgspec.Struct, frozen=True):
    """The monotonic instant at which a budget ends.

    >>> deadline = Deadline.after_ms(250, now_s=10.0)
    >>> deadline.left_ms(now_s=10.1)
    150.0
    """

    start_s: float
    budget_ms: float
    grain_ms: float = 0.0
    """So far the same budgets may lie apart, by how they were told."""

    @classmethod
    def after_ms(cls, budget_ms: float, *, now_s: float, grain_ms: float = 0.0) -> "Deadline":
        """The deadline of a budget that starts now; BudgetError if the budget is not sensible."""
        return cls(start_s=now_s, budget_ms=check_budget_ms(budget_ms), grain_ms=grain_ms)

    @property
    def at_s(self) -> float:
        return self.start_s + self.budget_ms / 1e3

    @property
    def turn_s(self) -> float:
        """Where it stands among others: in the order of arrival among those of the same budget.

        >>> one = Deadline(start_s=0.0, budget_ms=60_097.0, grain_ms=100.0)
        >>> two = Deadline(start_s=0.001, budget_ms=59_998.0, grain_ms=100.0)
        >>> one.at_s > two.at_s, one.turn_s > two.turn_s
        (True, False)
        """
        if not self.grain_ms:
            return self.at_s
        rough_ms = _GRAINS * self.grain_ms
        return self.start_s + round(self.budget_ms / rough_ms) * rough_ms / 1e3

    def left_ms(self, now_s: float) -> float:
        """Milliseconds left; negative once the deadline has passed."""
        return round((self.at_s - now_s) * 1e3, 6)

    def spent_ms(self, now_s: float) -> float:
        return round((now_s - self.start_s) * 1e3, 6)

    def passed(self, now_s: float) -> bool:
        return now_s >= self.at_s

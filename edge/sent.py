"""A remote plan under way, and how likely its answer still comes in time."""

import asyncio
from dataclasses import dataclass

from .cloud_messages import CloudAnswer
from .router import Option


@dataclass(slots=True)
class Sent:
    """The remote plan under way."""

    option: Option
    task: "asyncio.Future[CloudAnswer]"
    began_s: float
    asked_again_s: float
    safe: bool
    """Whether it was as good as sure to come in time."""

    def in_time(self, *, now_s: float, left_ms: float) -> float:
        """How likely its answer still comes, given that it has not come yet.

        What is overdue is like an outage: after t ms it is there within as long again in one case
        of two (a Pareto tail of index 1). Where a part is enough, the whole's not having come says
        how slow the link is, and the part is that much sooner.
        """
        elapsed_ms = (now_s - self.began_s) * 1e3
        option = self.option
        before = option.total.within(elapsed_ms)
        until = option.least.within(elapsed_ms + left_ms)
        tail = left_ms / (left_ms + elapsed_ms) if left_ms > 0 else 0.0
        if before > 0.95:
            return tail
        return max(until - before, 0.0) / (1.0 - before)

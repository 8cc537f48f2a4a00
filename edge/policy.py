"""What decides for the agent. The router is the policy; benchmarks drive rivals the same way."""

from collections.abc import Sequence
from typing import Protocol

from .demand import Demand
from .router import Decision, Option, Sight, choose, worth_waiting


class Policy(Protocol):
    """Asked when a request comes, when the light model has answered, and as a wait drags on."""

    def choose(
        self,
        options: Sequence[Option],
        *,
        left_ms: float,
        demand: Demand,
        sight: Sight | None,
        spent_bytes: float,
        sure_share: float,
    ) -> Decision:
        """Which plan to take with the time left."""
        ...

    def worth_waiting(
        self, running: Option, local: Option, *, in_time: float, demand: Demand, sight: Sight
    ) -> bool:
        """Whether to wait for a plan under way although the light model has answered."""
        ...


class RouterPolicy:
    """The router's rule."""

    def choose(
        self,
        options: Sequence[Option],
        *,
        left_ms: float,
        demand: Demand,
        sight: Sight | None,
        spent_bytes: float,
        sure_share: float,
    ) -> Decision:
        return choose(
            options,
            left_ms=left_ms,
            demand=demand,
            sight=sight,
            spent_bytes=spent_bytes,
            sure_share=sure_share,
        )

    def worth_waiting(
        self, running: Option, local: Option, *, in_time: float, demand: Demand, sight: Sight
    ) -> bool:
        return worth_waiting(running, local, in_time=in_time, demand=demand, sight=sight)

"""What decides for the agent. The router is the policy; benchmarks drive rivals the same way."""

from collections.abc import Sequence
from typing import Protocol

from . import router, two_ways
from .demand import Demand
from .question import Question, Sight
from .router import Decision, Option


class Policy(Protocol):
    """Asked when a request comes, when the light model has answered, and as a wait drags on."""

    def choose(self, options: Sequence[Option], question: Question) -> Decision:
        """Which plan to take with the time left."""
        ...

    def worth_waiting(
        self, running: Option, local: Option, *, in_time: float, demand: Demand, sight: Sight
    ) -> bool:
        """Whether to wait for a plan under way although the light model has answered."""
        ...


class RouterPolicy:
    """The router's rule."""

    choose = staticmethod(two_ways.choose)
    worth_waiting = staticmethod(router.worth_waiting)

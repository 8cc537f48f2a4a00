"""Policies that decide what a test needs, however busy the machine is."""

from collections.abc import Sequence
from dataclasses import dataclass

from hybridge.edge.demand import Demand
from hybridge.edge.question import Question, Sight
from hybridge.edge.router import Decision, Light, Option, worth_waiting
from hybridge.shared.plan import Plan

from ..bundles import CLOUD


@dataclass(frozen=True)
class Insistent:
    """Asks the cloud with one plan, and waits for it until the deadline."""

    plan: Plan = CLOUD

    def choose(self, options: Sequence[Option], question: Question) -> Decision:
        return Decision(next(option for option in options if option.plan == self.plan), 1.0)

    def worth_waiting(
        self, running: Option, local: Option, *, in_time: float, demand: Demand, sight: Sight
    ) -> bool:
        return True


@dataclass(frozen=True)
class Hasty:
    """Asks the cloud at once, runs the light model beside it, and waits as the router would."""

    plan: Plan = CLOUD

    def choose(self, options: Sequence[Option], question: Question) -> Decision:
        option = next(option for option in options if option.plan == self.plan)
        return Decision(option, 0.5, Light.BESIDE)

    def worth_waiting(
        self, running: Option, local: Option, *, in_time: float, demand: Demand, sight: Sight
    ) -> bool:
        return worth_waiting(running, local, in_time=in_time, demand=demand, sight=sight)

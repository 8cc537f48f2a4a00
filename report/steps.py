"""Where the time of an answer went, in the few steps a reader tells apart."""

import math
from dataclasses import dataclass
from enum import StrEnum

from ..client import Answer
from ..shared.plan import PlanKind


class Step(StrEnum):
    """The steps of a request in the order in which they happen."""

    DECODE = "decode"
    RESIZE = "resize"
    HEAD = "head"
    ENCODE = "encode"
    NETWORK = "network"
    CLOUD_QUEUE = "cloud_queue"
    CLOUD_COMPUTE = "cloud_compute"
    REST = "rest"
    LIGHT = "light"

    @property
    def words(self) -> str:
        return _WORDS.get(self, self.value.replace("_", " "))


_WORDS = {Step.LIGHT: "light model", Step.REST: "waiting, rest"}
_LIGHT_STAGES = {"resize_light": Step.RESIZE, "light": Step.LIGHT}
_STAGES = {step.value: step for step in Step} | _LIGHT_STAGES | {"resize_large": Step.RESIZE}


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Steps one after the other, and what the light model did meanwhile.

    `REST` is what the total holds beyond the measured steps: waiting for a cloud that did not
    answer, and the event loop. `beside_ms`: the light model's time where the cloud's answer was
    taken, so that it ran in the network's wait and is no part of the sum.
    """

    steps_ms: dict[Step, float]
    beside_ms: float

    def share_of(self, step: Step) -> float:
        """A step's part of all, 0 to 1; 0 where nothing was measured."""
        whole_ms = sum(self.steps_ms.values())
        return self.steps_ms.get(step, 0.0) / whole_ms if whole_ms else 0.0


def kind_of(plan: str) -> PlanKind | None:
    """The kind of a plan by its name; None for a name this version does not know."""
    head = plan.partition(":")[0]
    return PlanKind(head) if head in set(PlanKind) else None


def breakdown(answer: Answer) -> Breakdown:
    """An answer's time by step; stages of unknown names are part of the rest."""
    alone = kind_of(answer.plan) in (PlanKind.LOCAL, None)
    steps_ms: dict[Step, float] = {}
    beside_ms = 0.0
    for stage, spent_ms in answer.steps_ms.items():
        ms = milliseconds(spent_ms)
        if stage in _LIGHT_STAGES and not alone:
            beside_ms += ms
        elif stage in _STAGES:
            step = _STAGES[stage]
            steps_ms[step] = steps_ms.get(step, 0.0) + ms
    rest_ms = milliseconds(answer.total_ms) - sum(steps_ms.values())
    if rest_ms > 0:
        steps_ms[Step.REST] = steps_ms.get(Step.REST, 0.0) + rest_ms
    return Breakdown({step: steps_ms[step] for step in Step if steps_ms.get(step)}, beside_ms)


def mean_breakdown(breakdowns: list[Breakdown]) -> Breakdown:
    """The mean of each step: unlike medians, means of steps add up to the mean of the totals."""
    count = max(len(breakdowns), 1)
    means_ms = {
        step: sum(each.steps_ms.get(step, 0.0) for each in breakdowns) / count for step in Step
    }
    return Breakdown(
        {step: ms for step, ms in means_ms.items() if ms},
        sum(each.beside_ms for each in breakdowns) / count,
    )


def milliseconds(value: float) -> float:
    """A time as a chart can draw it: what is negative or no number is nothing."""
    return value if math.isfinite(value) and value > 0 else 0.0

"""What a demo did: where, with which bundle, and every answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..client import Answer
from ..devices.probe import Device
from ..shared.manifest import PlanRow
from ..shared.plan import PlanKind
from .steps import kind_of


@dataclass(frozen=True, slots=True)
class DemoAnswer:
    """One request of the demo; `answer` is None if none came, and `fault` says why.

    `thumbnail`: a small JPEG. `condition`: what the link was, such as "lte" or "cloud killed".
    """

    picture: str
    thumbnail: bytes
    condition: str
    budget_ms: float
    answer: Answer | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class DemoRun:
    """A whole demo; `links` gives the RTT in ms and the Mbit/s of a condition's link."""

    bundle: str
    version: str
    table: Sequence[PlanRow]
    device: Device
    links: Mapping[str, tuple[float, float]]
    answers: Sequence[DemoAnswer]

    @property
    def given(self) -> list[Answer]:
        """The answers that came."""
        return [each.answer for each in self.answers if each.answer is not None]

    @property
    def conditions(self) -> list[str]:
        """In the order in which they were tried."""
        return list(dict.fromkeys(each.condition for each in self.answers))

    def under(self, condition: str) -> list[DemoAnswer]:
        return [each for each in self.answers if each.condition == condition]


@dataclass(frozen=True, slots=True)
class Group:
    """The requests under one condition with one budget."""

    condition: str
    budget_ms: float
    requests: tuple[DemoAnswer, ...]

    @property
    def given(self) -> list[Answer]:
        """The answers that came."""
        return [each.answer for each in self.requests if each.answer is not None]


def groups(requests: Sequence[DemoAnswer]) -> list[Group]:
    """Requests by condition in the order tried, in each by rising budget."""
    found: dict[str, dict[float, list[DemoAnswer]]] = {}
    for each in requests:
        found.setdefault(each.condition, {}).setdefault(each.budget_ms, []).append(each)
    return [
        Group(condition, budget_ms, tuple(budgets[budget_ms]))
        for condition, budgets in found.items()
        for budget_ms in sorted(budgets)
    ]


def with_cloud(answer: Answer) -> bool:
    """Whether the answer is the large model's."""
    return kind_of(answer.plan) in (PlanKind.SPLIT, PlanKind.CLOUD)


def colour_of(plan: str) -> str:
    """The colour of a plan is that of the step that sets it apart."""
    colours = {PlanKind.LOCAL: "light", PlanKind.SPLIT: "head", PlanKind.CLOUD: "cloud_compute"}
    kind = kind_of(plan)
    return colours[kind] if kind else "rest"

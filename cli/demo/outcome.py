"""What the demo saw: a section per link and budget, and how it is told."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.table import Table

from ...client import Answer, Client
from ...shared.errors import RemoteError
from ...shared.plan import PlanKind
from ..console import table
from ..infer import as_json

_COLUMNS = (
    "link",
    "budget ms",
    "in time",
    "median ms",
    "slowest ms",
    "by cloud",
    "median bytes",
    "as large model",
    "plans",
)


@dataclass
class Section:
    """The answers under one condition and budget, by picture, and why others did not come."""

    condition: str
    budget_ms: float
    answers: dict[str, Answer] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    def ask(self, client: Client, file: Path, *, model: str) -> None:
        """Sends one picture and keeps what comes of it."""
        try:
            answer = client.infer(file.read_bytes(), budget_ms=self.budget_ms, model=model)
        except RemoteError as error:
            self.faults[file.name] = str(error)
        else:
            self.answers[file.name] = answer

    @property
    def asked(self) -> int:
        return len(self.answers) + len(self.faults)

    @property
    def in_time(self) -> int:
        return sum(answer.within_budget for answer in self.answers.values())


@dataclass(frozen=True)
class Outcome:
    """All sections, and what the large model itself says of each picture."""

    sections: Sequence[Section]
    large_model_labels: Mapping[str, str]

    @property
    def asked(self) -> int:
        return sum(section.asked for section in self.sections)

    @property
    def answered(self) -> int:
        return sum(len(section.answers) for section in self.sections)

    @property
    def in_time(self) -> int:
        return sum(section.in_time for section in self.sections)

    def summary(self) -> Table:
        """A row per section."""
        return table("\nsummary", _COLUMNS, [self._row(section) for section in self.sections])

    def as_json(self, report: Path) -> dict[str, object]:
        return {
            "asked": self.asked,
            "answered": self.answered,
            "within_budget": self.in_time,
            "report": str(report),
            "sections": [
                {
                    "condition": section.condition,
                    "budget_ms": section.budget_ms,
                    "unanswered": section.faults,
                    "answers": [
                        {
                            "picture": name,
                            "large_model_label": self.large_model_labels[name],
                            **as_json(answer),
                        }
                        for name, answer in section.answers.items()
                    ],
                }
                for section in self.sections
            ],
        }

    def _row(self, section: Section) -> tuple[str, ...]:
        answers = section.answers
        times = [answer.total_ms for answer in answers.values()] or [0.0]
        by_cloud = sum(not a.plan.startswith(PlanKind.LOCAL) for a in answers.values())
        agreed = sum(
            answer.label == self.large_model_labels[name] for name, answer in answers.items()
        )
        return (
            section.condition,
            f"{section.budget_ms:g}",
            f"{section.in_time}/{section.asked}",
            f"{median(times):.0f}",
            f"{max(times):.0f}",
            str(by_cloud),
            f"{median([answer.sent_bytes for answer in answers.values()] or [0]):,.0f}",
            f"{agreed}/{section.asked}",
            _plans(answers),
        )


def _plans(answers: Mapping[str, Answer]) -> str:
    counts = Counter(answer.plan for answer in answers.values())
    return ", ".join(f"{count} {plan}" for plan, count in counts.most_common())

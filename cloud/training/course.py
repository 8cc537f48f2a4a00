"""What a trainer trains: a net, what it learns from, and how well it does."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import nn

from .lessons import Indices, Lessons
from .loss import distillation_loss
from .settings import TrainingSettings
from .student import Student


@dataclass(frozen=True)
class Outcome:
    """Means over pictures; `sent_bytes` is what a bottleneck sends for one, by its own model."""

    loss: float
    agreement: float
    sent_bytes: float = 0.0

    @classmethod
    def together(cls, parts: Sequence[tuple["Outcome", int]]) -> "Outcome":
        """Of several groups of pictures, each with its number."""
        total = sum(count for _, count in parts)
        return cls(
            *(
                sum(getattr(part, each.name) * count for part, count in parts) / total
                for each in fields(cls)
            )
        )


class Course(Protocol):
    """One kind of training. What is random in it is drawn from torch's own generator."""

    net: nn.Module
    lessons: Lessons

    def loss(self, rows: Indices, *, share: float) -> torch.Tensor:
        """What is to become small, for rows of the lessons; `share` of all steps are done."""

    def judge(self, rows: Indices) -> Outcome:
        """How the net does, as it would be used."""


class Distillation:
    """A student that is to answer as its teacher does."""

    def __init__(
        self, net: Student, lessons: Lessons, settings: TrainingSettings, *, device: torch.device
    ) -> None:
        self.net = net.to(device)
        self.lessons = lessons
        self._settings = settings
        self._device = device
        self._teacher = torch.from_numpy(lessons.logits)

    def loss(self, rows: Indices, *, share: float) -> torch.Tensor:
        settings = self._settings
        return distillation_loss(
            self._answers(rows),
            self._teacher[rows].to(self._device),
            temperature=settings.temperature,
            hard=settings.hard,
        )

    def judge(self, rows: Indices) -> Outcome:
        settings, teacher = self._settings, self._teacher[rows].to(self._device)
        answers = self._answers(rows)
        loss = distillation_loss(
            answers, teacher, temperature=settings.temperature, hard=settings.hard
        )
        agreed = (answers.argmax(1) == teacher.argmax(1)).float().mean()
        return Outcome(loss=float(loss), agreement=float(agreed))

    def _answers(self, rows: Indices) -> torch.Tensor:
        inputs = self.lessons.inputs(rows, self._device)
        kind = self._device.type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda"):
            logits: torch.Tensor = self.net(inputs)
        return logits.float()

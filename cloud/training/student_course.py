"""A student's course: to answer as its teacher does."""

import torch
from torch import Tensor, nn

from .course import Judgement
from .lessons import Indices, Lessons
from .loss import distillation_loss
from .settings import TrainingSettings

_EVALUATION_BATCH = 64


class StudentCourse:
    """Lessons with their teacher's logits; the score is the share of answers that agree."""

    def __init__(self, lessons: Lessons, settings: TrainingSettings) -> None:
        self._lessons = lessons
        self._settings = settings
        self._teacher = torch.from_numpy(lessons.logits)

    @property
    def rows(self) -> int:
        return len(self._lessons.learned)

    def draw(self, *, seed: int, epoch: int) -> Indices:
        return self._lessons.draw(seed=seed, epoch=epoch)

    def loss(self, net: nn.Module, rows: Indices, device: torch.device) -> Tensor:
        return self._loss(self._logits(net, rows, device), rows)

    def judge(self, net: nn.Module, device: torch.device) -> Judgement:
        rows = self._lessons.held_out
        loss, agreed = 0.0, 0
        for start in range(0, len(rows), _EVALUATION_BATCH):
            batch = rows[start : start + _EVALUATION_BATCH]
            logits = self._logits(net, batch, device)
            loss += len(batch) * float(self._loss(logits, batch))
            teacher = self._teacher[batch].to(device)
            agreed += int((logits.argmax(1) == teacher.argmax(1)).sum())
        return Judgement(loss / len(rows), agreed / len(rows))

    def _logits(self, net: nn.Module, rows: Indices, device: torch.device) -> Tensor:
        """In float32; a GPU computes them in bfloat16, which is enough to learn by."""
        inputs = self._lessons.inputs(rows, device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            logits: Tensor = net(inputs)
        return logits.float()

    def _loss(self, logits: Tensor, rows: Indices) -> Tensor:
        return distillation_loss(
            logits,
            self._teacher[rows].to(logits.device),
            temperature=self._settings.temperature,
            hard=self._settings.hard,
        )

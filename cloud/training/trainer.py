"""The training loop: early stop, checkpoints, and the same result however often it was killed.

What is random in a step (order, views, dropout) depends on the seed, the epoch and the step alone.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ...shared.errors import BuildError
from .checkpoint import Progressed, load, save
from .lessons import Indices, Lessons
from .loss import distillation_loss
from .settings import TrainingSettings
from .student import Student

_CHECKPOINT_EVERY_S = 30.0
_WARM_UP = 0.05
_WEIGHT_DECAY = 0.02
_EVALUATION_BATCH = 64
_MOMENTUM = 0.1


@dataclass(frozen=True)
class Standing:
    """How a training goes: `loss` is this epoch's mean so far, `left_s` the time at this pace."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    held_out_loss: float
    agreement: float
    left_s: float


@dataclass(frozen=True)
class Trained:
    """What came of a training: the net holds the weights of its best epoch."""

    best_epoch: int
    epochs: int
    held_out_loss: float
    agreement: float


Watch = Callable[[Standing], None]


class Trainer:
    """Trains the layers of a student that may learn; `statistics` says whether its norms do too."""

    def __init__(
        self,
        net: Student,
        lessons: Lessons,
        settings: TrainingSettings,
        *,
        learning_rate: float,
        statistics: bool,
        device: torch.device,
        checkpoint: Path,
        watch: Watch,
        checkpoint_every_s: float = _CHECKPOINT_EVERY_S,
    ) -> None:
        self._net = net.to(device)
        self._lessons = lessons
        self._settings = settings
        self._learning_rate = learning_rate
        self._statistics = statistics
        self._device = device
        self._checkpoint = checkpoint
        self._watch = watch
        self._checkpoint_every_s = checkpoint_every_s
        self._steps = math.ceil(len(lessons.learned) / settings.batch)
        self._teacher = torch.from_numpy(lessons.logits)
        self._started = (0.0, 0)

    def run(self) -> Trained:
        """Trains to the end, from the last checkpoint if there is one."""
        optimizer = torch.optim.AdamW(_groups(self._net), lr=self._learning_rate)
        state = load(self._checkpoint)
        if state is None:
            loss, agreement = self.held_out()
            # Tuning may not make worse what its head has learned; random weights know nothing.
            start_loss = math.inf if self._statistics else loss
            state = Progressed(net={}, optimizer={}, best=_copied(self._net), best_loss=start_loss)
            self._save(state, optimizer, step=0)
        else:
            self._restore(state, optimizer)
            loss, agreement = self.held_out()
        settings = self._settings
        saved_s = time.monotonic()
        self._started = (saved_s, state.epoch * self._steps + state.step)
        while state.epoch < settings.epochs and not state.finished:
            rows = self._lessons.draw(seed=settings.seed, epoch=state.epoch)
            total, seen = 0.0, 0
            with _learning(self._net, statistics=self._statistics):
                for step in range(state.step, self._steps):
                    batch = rows[step * settings.batch : (step + 1) * settings.batch]
                    total += self._step(optimizer, batch, epoch=state.epoch, step=step)
                    seen += 1
                    if step + 1 < self._steps:  # the last one is told with what it led to
                        self._tell(state.epoch, step + 1, total / seen, loss, agreement)
                    if time.monotonic() - saved_s > self._checkpoint_every_s:
                        self._save(state, optimizer, step=step + 1)
                        saved_s = time.monotonic()
            state.epoch, state.step = state.epoch + 1, 0
            loss, agreement = self.held_out()
            self._judge(state, loss)
            self._save(state, optimizer, step=0)
            self._tell(state.epoch - 1, self._steps, total / max(seen, 1), loss, agreement)
        self._net.load_state_dict(state.best)
        self._net.eval()
        loss, agreement = self.held_out()
        return Trained(state.best_epoch, state.epoch, loss, agreement)

    def held_out(self) -> tuple[float, float]:
        """Mean loss, and the share of answers that are the teacher's, on pictures held out."""
        self._net.eval()
        rows = self._lessons.held_out
        loss, agreed = 0.0, 0
        with torch.inference_mode():
            for start in range(0, len(rows), _EVALUATION_BATCH):
                batch = rows[start : start + _EVALUATION_BATCH]
                teacher = self._teacher[batch].to(self._device)
                logits = self._forward(batch)
                loss += len(batch) * float(self._loss(logits, teacher))
                agreed += int((logits.argmax(1) == teacher.argmax(1)).sum())
        return loss / len(rows), agreed / len(rows)

    def _step(
        self, optimizer: torch.optim.Optimizer, rows: Indices, *, epoch: int, step: int
    ) -> float:
        done = epoch * self._steps + step
        total = self._settings.epochs * self._steps
        for group in optimizer.param_groups:
            group["lr"] = self._learning_rate * schedule(done, total)
        torch.manual_seed((self._settings.seed << 32) + done)
        self._set_momentum(done)
        optimizer.zero_grad(set_to_none=True)
        loss = self._loss(self._forward(rows), self._teacher[rows].to(self._device))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise BuildError(
                f"the loss is {value} in epoch {epoch + 1}; train with a smaller --learning-rate"
            )
        return value

    def _set_momentum(self, done: int) -> None:
        """Running statistics are the mean of all steps at first, not a trace of their start."""
        for part in self._net.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = max(_MOMENTUM, 1 / (done + 1))

    def _forward(self, rows: Indices) -> torch.Tensor:
        inputs = self._lessons.inputs(rows, self._device)
        kind = self._device.type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda"):
            logits: torch.Tensor = self._net(inputs)
        return logits.float()

    def _loss(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        settings = self._settings
        return distillation_loss(
            student, teacher, temperature=settings.temperature, hard=settings.hard
        )

    def _judge(self, state: Progressed, loss: float) -> None:
        if loss < state.best_loss:
            state.best, state.best_loss = _copied(self._net), loss
            state.best_epoch, state.stale = state.epoch, 0
        else:
            state.stale += 1
            state.finished = state.stale >= self._settings.patience

    def _save(self, state: Progressed, optimizer: torch.optim.Optimizer, *, step: int) -> None:
        state.step = step
        state.net, state.optimizer = self._net.state_dict(), optimizer.state_dict()
        save(state, self._checkpoint)

    def _restore(self, state: Progressed, optimizer: torch.optim.Optimizer) -> None:
        self._net.load_state_dict(state.net)
        optimizer.load_state_dict(state.optimizer)

    def _tell(self, epoch: int, step: int, loss: float, held_out: float, agreement: float) -> None:
        since_s, first = self._started
        done, total = epoch * self._steps + step, self._settings.epochs * self._steps
        pace_s = (time.monotonic() - since_s) / max(1, done - first)
        self._watch(
            Standing(
                epoch=epoch + 1,
                epochs=self._settings.epochs,
                step=step,
                steps=self._steps,
                loss=loss,
                held_out_loss=held_out,
                agreement=agreement,
                left_s=pace_s * (total - done),
            )
        )


def schedule(done: int, total: int) -> float:
    """The share of the learning rate at a step: a short way up, then half a cosine to zero.

    >>> [round(schedule(step, 100), 2) for step in (0, 4, 50, 99)]
    [0.2, 1.0, 0.54, 0.0]
    """
    up = max(1, round(_WARM_UP * total))
    if done < up:
        return (done + 1) / up
    return 0.5 * (1 + math.cos(math.pi * (done - up) / max(1, total - up)))


def _groups(net: nn.Module) -> list[dict[str, object]]:
    """Weights decay; norms and biases, which have one axis, do not."""
    learning = [each for each in net.parameters() if each.requires_grad]
    return [
        {"params": [each for each in learning if each.ndim > 1], "weight_decay": _WEIGHT_DECAY},
        {"params": [each for each in learning if each.ndim <= 1], "weight_decay": 0.0},
    ]


@contextmanager
def _learning(net: nn.Module, *, statistics: bool) -> Iterator[None]:
    """Training mode; without `statistics` the norms keep those they came with."""
    net.train()
    if not statistics:
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
    try:
        yield
    finally:
        net.eval()


def _copied(net: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy({name: each.cpu() for name, each in net.state_dict().items()})

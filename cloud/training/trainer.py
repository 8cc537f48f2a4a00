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
from .course import Course, Judgement, Pace
from .lessons import Indices

_CHECKPOINT_EVERY_S = 30.0
_WARM_UP = 0.05
_WEIGHT_DECAY = 0.02
_MOMENTUM = 0.1


@dataclass(frozen=True)
class Standing:
    """How a training goes: `loss` is this epoch's mean so far, `left_s` the time at this pace.

    `score` and `sent_bytes` are what the course makes of the pictures held out.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    held_out_loss: float
    score: float
    left_s: float
    sent_bytes: float = 0.0


@dataclass(frozen=True)
class Trained:
    """What came of a training: the net holds the weights of its best epoch."""

    best_epoch: int
    epochs: int
    held_out_loss: float
    score: float
    sent_bytes: float = 0.0


Watch = Callable[[Standing], None]


class Trainer:
    """Trains the layers of a net that may learn; `statistics` says whether its norms do too."""

    def __init__(
        self,
        net: nn.Module,
        course: Course,
        pace: Pace,
        *,
        learning_rate: float,
        statistics: bool,
        device: torch.device,
        checkpoint: Path,
        watch: Watch,
        checkpoint_every_s: float = _CHECKPOINT_EVERY_S,
    ) -> None:
        self._net = net.to(device)
        self._course = course
        self._pace = pace
        self._learning_rate = learning_rate
        self._statistics = statistics
        self._device = device
        self._checkpoint = checkpoint
        self._watch = watch
        self._checkpoint_every_s = checkpoint_every_s
        self._steps = math.ceil(course.rows / pace.batch)
        self._started = (0.0, 0)

    def run(self) -> Trained:
        """Trains to the end, from the last checkpoint if there is one."""
        optimizer = torch.optim.AdamW(_groups(self._net), lr=self._learning_rate)
        state = load(self._checkpoint)
        if state is None:
            held = self.held_out()
            # Tuning may not make worse what its head has learned; random weights know nothing.
            start_loss = math.inf if self._statistics else held.loss
            state = Progressed(net={}, optimizer={}, best=_copied(self._net), best_loss=start_loss)
            self._save(state, optimizer, step=0)
        else:
            self._restore(state, optimizer)
            held = self.held_out()
        pace = self._pace
        saved_s = time.monotonic()
        self._started = (saved_s, state.epoch * self._steps + state.step)
        while state.epoch < pace.epochs and not state.finished:
            rows = self._course.draw(seed=pace.seed, epoch=state.epoch)
            total, seen = 0.0, 0
            with _learning(self._net, statistics=self._statistics):
                for step in range(state.step, self._steps):
                    batch = rows[step * pace.batch : (step + 1) * pace.batch]
                    total += self._step(optimizer, batch, epoch=state.epoch, step=step)
                    seen += 1
                    if step + 1 < self._steps:  # the last one is told with what it led to
                        self._tell(state.epoch, step + 1, total / seen, held)
                    if time.monotonic() - saved_s > self._checkpoint_every_s:
                        self._save(state, optimizer, step=step + 1)
                        saved_s = time.monotonic()
            state.epoch, state.step = state.epoch + 1, 0
            held = self.held_out()
            self._judge(state, held.loss)
            self._save(state, optimizer, step=0)
            self._tell(state.epoch - 1, self._steps, total / max(seen, 1), held)
        self._net.load_state_dict(state.best)
        self._net.eval()
        held = self.held_out()
        return Trained(state.best_epoch, state.epoch, held.loss, held.score, held.sent_bytes)

    def held_out(self) -> Judgement:
        """How the net does as it is on pictures held out."""
        self._net.eval()
        with torch.inference_mode():
            return self._course.judge(self._net, self._device)

    def _step(
        self, optimizer: torch.optim.Optimizer, rows: Indices, *, epoch: int, step: int
    ) -> float:
        done = epoch * self._steps + step
        total = self._pace.epochs * self._steps
        for group in optimizer.param_groups:
            group["lr"] = self._learning_rate * schedule(done, total)
        torch.manual_seed((self._pace.seed << 32) + done)
        self._set_momentum(done)
        optimizer.zero_grad(set_to_none=True)
        loss = self._course.loss(self._net, rows, self._device)
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

    def _judge(self, state: Progressed, loss: float) -> None:
        if loss < state.best_loss:
            state.best, state.best_loss = _copied(self._net), loss
            state.best_epoch, state.stale = state.epoch, 0
        else:
            state.stale += 1
            state.finished = state.stale >= self._pace.patience

    def _save(self, state: Progressed, optimizer: torch.optim.Optimizer, *, step: int) -> None:
        state.step = step
        state.net, state.optimizer = self._net.state_dict(), optimizer.state_dict()
        save(state, self._checkpoint)

    def _restore(self, state: Progressed, optimizer: torch.optim.Optimizer) -> None:
        self._net.load_state_dict(state.net)
        optimizer.load_state_dict(state.optimizer)

    def _tell(self, epoch: int, step: int, loss: float, held: Judgement) -> None:
        since_s, first = self._started
        done, total = epoch * self._steps + step, self._pace.epochs * self._steps
        pace_s = (time.monotonic() - since_s) / max(1, done - first)
        self._watch(
            Standing(
                epoch=epoch + 1,
                epochs=self._pace.epochs,
                step=step,
                steps=self._steps,
                loss=loss,
                held_out_loss=held.loss,
                score=held.score,
                sent_bytes=held.sent_bytes,
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

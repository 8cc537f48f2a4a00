"""A bottleneck's course: to give the large model's own features and answers for few bytes."""

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .arithmetic import mixed
from .bottleneck_net import Bottleneck, drawn_offset, on_grid
from .course import Judgement
from .lessons import Indices, Lessons
from .loss import distillation_loss
from .settings import BottleneckSettings, TrainingSettings

_FEATURES_ALONE = 0.5
"""Share of the steps before the tail runs too: what a decoder makes at first tells it nothing."""

_PRICED = 0.05
"""Share of the steps before the price of a byte follows: at first all bytes are noise."""

_ANSWERED = 2
"""Every so many steps the tail runs: it costs as much as all that learns."""

_MOST_PULL = 2.0

_EVALUATION_BATCH = 32
_TINY = 1e-8


class BottleneckCourse:
    """Feature and output matching under a price for bytes; `features` are the trunk's, [rows, ...].

    Loss: mean squared error of the features over their mean square, plus, from some step on, the
    distillation loss of the answers, plus price * bytes. Only the net learns, the tail never. The
    score is the share of answers that agree.
    """

    def __init__(
        self,
        tail: nn.Module,
        features: npt.NDArray[Any],
        lessons: Lessons,
        *,
        bottleneck: BottleneckSettings,
        training: TrainingSettings,
        probabilities: bool,
        device: torch.device,
    ) -> None:
        self._lessons = lessons
        self._tail = tail.to(device).requires_grad_(False)
        self._features = features
        self._teacher = torch.from_numpy(lessons.logits)
        self._wanted_bytes = bottleneck.sent_bytes
        self._training = training
        self._probabilities = probabilities
        self._steps = training.epochs * -(-self.rows // training.batch)

    @property
    def rows(self) -> int:
        return len(self._lessons.learned)

    def draw(self, *, seed: int, epoch: int) -> Indices:
        return self._lessons.draw(seed=seed, epoch=epoch)

    def loss(self, net: nn.Module, rows: Indices, device: torch.device) -> Tensor:
        own = cast(Bottleneck, net)
        done = int(own.steps)
        own.steps += 1
        latents = self._latents(own, rows, device)
        noisy = latents + torch.rand_like(latents) - 0.5
        sent_bytes = own.rate(noisy).mean() / 8
        features = _decoded(own, on_grid(latents, offset=drawn_offset(latents)))
        wanted = self._wanted(rows, device)
        loss: Tensor = _feature_loss(own, features, wanted) + float(own.price) * sent_bytes
        if done >= _FEATURES_ALONE * self._steps and done % _ANSWERED == 0:
            answers = self._answers(_limited(features, wanted, scale=own.decoder.scale))
            loss = loss + self._answer_loss(answers, rows)
        if done >= _PRICED * self._steps:
            own.follow(float(sent_bytes.detach()), wanted=self._wanted_bytes)
        return loss

    def judge(self, net: nn.Module, device: torch.device) -> Judgement:
        """On whole steps; bytes beyond those wanted count as a share of them."""
        own, rows = cast(Bottleneck, net), self._lessons.held_out
        loss = agreed = sent_bytes = 0.0
        for start in range(0, len(rows), _EVALUATION_BATCH):
            batch = rows[start : start + _EVALUATION_BATCH]
            latents = on_grid(self._latents(own, batch, device))
            features = _decoded(own, latents)
            answers = self._answers(features)
            agreed += int((answers.argmax(1) == self._teacher[batch].to(device).argmax(1)).sum())
            sent_bytes += float(own.rate(latents).sum()) / 8
            both = _feature_loss(own, features, self._wanted(batch, device))
            both = both + self._answer_loss(answers, batch)
            loss += len(batch) * float(both)
        sent_bytes /= len(rows)
        over = max(0.0, sent_bytes / self._wanted_bytes - 1)
        return Judgement(loss / len(rows) + over, agreed / len(rows), sent_bytes)

    def _latents(self, net: Bottleneck, rows: Indices, device: torch.device) -> Tensor:
        return encoded(net, self._lessons.inputs(rows, device))

    def _answers(self, features: Tensor) -> Tensor:
        """The tail's answers as logits."""
        with mixed(features.device):
            made: Tensor = self._tail(features)
        answers = made.float()
        return answers.clamp_min(_TINY).log() if self._probabilities else answers

    def _wanted(self, rows: Indices, device: torch.device) -> Tensor:
        return torch.from_numpy(np.asarray(self._features[rows], np.float32)).to(device)

    def _answer_loss(self, answers: Tensor, rows: Indices) -> Tensor:
        return distillation_loss(
            answers,
            self._teacher[rows].to(answers.device),
            temperature=self._training.temperature,
            hard=self._training.hard,
        )


def encoded(net: Bottleneck, pictures: Tensor) -> Tensor:
    """Latents in float32, not yet rounded."""
    with mixed(pictures.device):
        latents: Tensor = net.encoder(pictures)
    return latents.float()


def _feature_loss(net: Bottleneck, features: Tensor, wanted: Tensor) -> Tensor:
    away = (features - wanted) / net.decoder.scale
    loss: Tensor = away.square().mean()
    return loss


def _limited(features: Tensor, wanted: Tensor, *, scale: float) -> Tensor:
    """The same, but what the answers pull at features is at most so many times the features' own.

    The tail's slopes are many times those of the features; taken as they are, the step in which
    they first come undoes what was learned.
    """
    with torch.no_grad():
        own = 2 * (features - wanted).norm() / (scale**2 * features.numel())
    branch = features * 1
    branch.register_hook(  # type: ignore[no-untyped-call]
        lambda slopes: slopes * (_MOST_PULL * own / slopes.norm().clamp_min(1e-12)).clamp_max(1.0)
    )
    return branch


def _decoded(net: Bottleneck, latents: Tensor) -> Tensor:
    with mixed(latents.device):
        features: Tensor = net.decoder(latents)
    return features.float()

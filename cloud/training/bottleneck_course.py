"""A bottleneck that is to give the large model's own features and answers for few bytes."""

from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from .arithmetic import mixed
from .bottleneck_net import Bottleneck, drawn_offset, on_grid
from .course import Outcome
from .lessons import Indices, Lessons
from .loss import distillation_loss
from .settings import BottleneckSettings, TrainingSettings

_FEATURES_ALONE = 0.3
"""Share of the steps before the tail runs too: what a decoder makes at first tells it nothing."""

_PRICED = 0.05
"""Share of the steps before the price of a byte follows: at first all bytes are noise."""


class BottleneckCourse:
    """Feature and output matching under a price for bytes; `features` are the trunk's, [rows, ...].

    Loss: mean squared error of the features over their mean square, plus, from some step on, the
    distillation loss of the answers, plus price * bytes. Only the net learns, the tail never.
    """

    def __init__(
        self,
        net: Bottleneck,
        tail: nn.Module,
        features: npt.NDArray[Any],
        lessons: Lessons,
        *,
        bottleneck: BottleneckSettings,
        training: TrainingSettings,
        probabilities: bool,
        device: torch.device,
    ) -> None:
        self.net: Bottleneck = net.to(device, memory_format=torch.channels_last)
        self.lessons = lessons
        self._tail = tail.to(device).requires_grad_(False)
        self._features = features
        self._teacher = torch.from_numpy(lessons.logits)
        self._settings, self._training = bottleneck, training
        self._probabilities = probabilities
        self._device = device

    def loss(self, rows: Indices, *, share: float) -> torch.Tensor:
        """For rows of the lessons, in training mode."""
        net = self.net
        latents = self._latents(rows)
        noisy = latents + torch.rand_like(latents) - 0.5
        sent_bytes = net.rate(noisy).mean() / 8
        features = self._decoded(on_grid(latents, offset=drawn_offset(latents)))
        loss = self._feature_loss(features, rows) + net.price * sent_bytes
        if share >= _FEATURES_ALONE:
            loss = loss + self._answer_loss(self._answers(features), rows)
        if share >= _PRICED:
            net.follow(float(sent_bytes.detach()), wanted=self._settings.sent_bytes)
        return loss

    def judge(self, rows: Indices) -> Outcome:
        """On whole steps; bytes beyond those wanted count as a share of them."""
        latents = on_grid(self._latents(rows))
        sent_bytes = float(self.net.rate(latents).mean()) / 8
        features = self._decoded(latents)
        answers = self._answers(features)
        agreed = answers.argmax(1) == self._teacher[rows].to(self._device).argmax(1)
        loss = float(self._feature_loss(features, rows)) + float(self._answer_loss(answers, rows))
        return Outcome(
            loss=loss + max(0.0, sent_bytes / self._settings.sent_bytes - 1),
            agreement=float(agreed.float().mean()),
            sent_bytes=sent_bytes,
        )

    def _latents(self, rows: Indices) -> torch.Tensor:
        with mixed(self._device):
            latents: torch.Tensor = self.net.encoder(self.lessons.inputs(rows, self._device))
        return latents.float()

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        with mixed(self._device):
            features: torch.Tensor = self.net.decoder(latents)
        return features.float()

    def _answers(self, features: torch.Tensor) -> torch.Tensor:
        """The tail's answers as logits."""
        with mixed(self._device):
            answers: torch.Tensor = self._tail(features)
        return answers.float().clamp_min(1e-8).log() if self._probabilities else answers.float()

    def _feature_loss(self, features: torch.Tensor, rows: Indices) -> torch.Tensor:
        wanted = torch.from_numpy(self._features[rows]).to(self._device).float()
        return ((features - wanted) / self.net.decoder.scale).square().mean()

    def _answer_loss(self, answers: torch.Tensor, rows: Indices) -> torch.Tensor:
        return distillation_loss(
            answers,
            self._teacher[rows].to(self._device),
            temperature=self._training.temperature,
            hard=self._training.hard,
        )

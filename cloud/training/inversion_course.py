"""The course of a net that rebuilds pictures: to make them as alike as it is measured."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .course import Judgement
from .lessons import Indices
from .similarity import ssim

_EVALUATION_BATCH = 32


class InversionCourse:
    """Views of pictures with what the frames of each plan held; the score is the mean SSIM.

    `tensors` are int8 [views * pictures, plans, ...], `pixels` uint8 [views * pictures, s, s, 3];
    `learned` and `held_out` are positions of pictures.
    """

    def __init__(
        self,
        tensors: npt.NDArray[Any],
        pixels: npt.NDArray[Any],
        *,
        learned: Indices,
        held_out: Indices,
    ) -> None:
        self._tensors, self._pixels = tensors, pixels
        self._learned, self._held_out = learned, held_out
        self._pictures = len(learned) + len(held_out)
        self._plans = tensors.shape[1]

    @property
    def rows(self) -> int:
        return len(self._learned)

    def draw(self, *, seed: int, epoch: int) -> Indices:
        """Every picture once, in one of its views, as one of the plans sent it."""
        random = np.random.default_rng((seed, epoch))
        order = random.permutation(self._learned)
        views = len(self._pixels) // self._pictures
        view = random.integers(0, views, len(order))
        plan = random.integers(0, self._plans, len(order))
        rows: Indices = (order + self._pictures * view) * self._plans + plan
        return rows

    def loss(self, net: nn.Module, rows: Indices, device: torch.device) -> Tensor:
        rebuilt, wanted = self._both(net, rows, device)
        return _loss(rebuilt, wanted).mean()

    def judge(self, net: nn.Module, device: torch.device) -> Judgement:
        rows = (self._held_out[:, None] * self._plans + np.arange(self._plans)).ravel()
        loss = score = 0.0
        for start in range(0, len(rows), _EVALUATION_BATCH):
            rebuilt, wanted = self._both(net, rows[start : start + _EVALUATION_BATCH], device)
            loss += float(_loss(rebuilt, wanted).sum())
            score += float(ssim(rebuilt, wanted).sum())
        return Judgement(loss / len(rows), score / len(rows))

    def examples(self, most: int) -> Tensor:
        """Some of what is learned from, float32 [n, elements]."""
        rows = self._learned[:most]
        return values_of(self._tensors[rows].reshape(-1, *self._tensors.shape[2:]))

    def _both(self, net: nn.Module, rows: Indices, device: torch.device) -> tuple[Tensor, Tensor]:
        picture, plan = np.divmod(rows, self._plans)
        rebuilt = net(values_of(self._tensors[picture, plan]).to(device))
        return rebuilt, pictures_of(self._pixels[picture]).to(device)


def values_of(tensors: npt.NDArray[Any]) -> Tensor:
    """int8 [n, ...] as float32 [n, elements]."""
    return torch.from_numpy(np.array(tensors, np.float32).reshape(len(tensors), -1))


def pictures_of(pixels: npt.NDArray[Any]) -> Tensor:
    """uint8 [n, s, s, 3] as float32 [n, 3, s, s] in 0..1."""
    return torch.from_numpy(np.array(pixels, np.float32)).permute(0, 3, 1, 2) / 255


def _loss(rebuilt: Tensor, wanted: Tensor) -> Tensor:
    """Half the absolute error and half what SSIM lacks of one, [n].

    After Zhao et al., "Loss functions for image restoration with neural networks" (2017).
    """
    return 0.5 * (rebuilt - wanted).abs().mean((1, 2, 3)) + 0.5 * (1 - ssim(rebuilt, wanted))

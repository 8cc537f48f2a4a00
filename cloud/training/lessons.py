"""What a student learns from: pixels, and the large model's answer to each."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from ...shared.errors import BuildError
from ...shared.manifest import OutputKind
from ...shared.preprocess import PreprocessSpec
from .answers import Floats

Indices = npt.NDArray[np.int64]

_TINY = 1e-8
_FEWEST = 16


@dataclass(frozen=True)
class Lessons:
    """Rows of pictures: view 0 of each, then view 1 of each, and so on.

    `pixels` are uint8 [views * pictures, s, s, 3], `logits` the teacher's, float32 [views *
    pictures, classes]; `learned` and `held_out` are positions of pictures, no picture in both.
    """

    pixels: npt.NDArray[Any]
    logits: Floats
    learned: Indices
    held_out: Indices
    spec: PreprocessSpec

    @property
    def pictures(self) -> int:
        return len(self.learned) + len(self.held_out)

    @property
    def views(self) -> int:
        return len(self.logits) // self.pictures

    def draw(self, *, seed: int, epoch: int) -> Indices:
        """The rows of one epoch: every picture that is learned from once, in one of its views."""
        random = np.random.default_rng((seed, epoch))
        order = random.permutation(self.learned)
        rows: Indices = order + self.pictures * random.integers(0, self.views, len(order))
        return rows

    def inputs(self, rows: Indices, device: torch.device) -> torch.Tensor:
        """What the student sees, float32 [n, 3, s, s]."""
        pixels = torch.from_numpy(np.asarray(self.pixels[rows])).to(device)
        mean, std = (torch.tensor(each, device=device) for each in (self.spec.mean, self.spec.std))
        # Channels stay last in memory, which convolutions like; only their axis moves.
        return ((pixels.float() - mean) / std).permute(0, 3, 1, 2)

    @cached_property
    def answers(self) -> Indices:
        """The teacher's class for each row."""
        return cast(Indices, self.logits.argmax(axis=1))


def as_logits(outputs: Floats, kind: OutputKind) -> Floats:
    """A teacher's outputs as logits: probabilities by their logarithms."""
    if kind is OutputKind.LOGITS:
        return outputs
    return np.log(np.maximum(outputs, _TINY)).astype(np.float32)


def output_kind_of(outputs: Floats) -> OutputKind:
    """Probabilities if all are positive and each answer sums to one."""
    sums = outputs.sum(axis=1)
    if outputs.min() >= 0 and np.abs(sums - 1).max() < 0.02:
        return OutputKind.PROBABILITIES
    return OutputKind.LOGITS


def split(keys: Sequence[bytes], *, held_out: float) -> tuple[Indices, Indices]:
    """Positions learned from and held out, by the pictures' keys: a picture never changes sides.

    Copies of one picture have one key and stay together. BuildError if either part is too small.
    """
    drawn = np.array([int.from_bytes(key[:4], "little") / 2**32 for key in keys])
    held = np.flatnonzero(drawn < held_out).astype(np.int64)
    learned = np.flatnonzero(drawn >= held_out).astype(np.int64)
    if min(len(held), len(learned)) < _FEWEST:
        raise BuildError(
            f"{len(keys)} pictures leave {len(learned)} to learn from and {len(held)} held out; "
            f"at least {_FEWEST} of each are needed: give more pictures or another --held-out"
        )
    return learned, held

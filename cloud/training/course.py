"""What a training loop needs to know of what is learned."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .lessons import Indices


class Judgement(NamedTuple):
    """On pictures held out: the mean loss, and how good that is in the course's own measure.

    `sent_bytes` is what a net that sends something sends for one, by its own reckoning.
    """

    loss: float
    score: float
    sent_bytes: float = 0.0


class Course(Protocol):
    """Rows to learn from, the loss of some of them, and how well a net does on those held out."""

    @property
    def rows(self) -> int:
        """How many an epoch has."""
        ...

    def draw(self, *, seed: int, epoch: int) -> Indices:
        """The rows of an epoch in their order, the same whenever it is asked."""
        ...

    def loss(self, net: nn.Module, rows: Indices, device: torch.device) -> Tensor:
        """The mean over these rows, a scalar."""
        ...

    def judge(self, net: nn.Module, device: torch.device) -> Judgement:
        """Without a trace in the net."""
        ...


class Pace(Protocol):
    """How long and in what steps a net learns."""

    @property
    def epochs(self) -> int: ...

    @property
    def batch(self) -> int: ...

    @property
    def patience(self) -> int: ...

    @property
    def seed(self) -> int: ...

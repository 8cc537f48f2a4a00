"""What the coder will take for quantized latents, in bits, such that it can be trained on.

The coder (shared/codec/channels.py) sends the pixels in passes: those of the first know nothing of
their surroundings, later ones the sum of their four diagonal or direct neighbours, which chooses
their table of frequencies. Here the symbols of each channel and kind of pass are of a logistic
distribution, whose mean and scale follow that sum.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...shared.codec.neighbours import PASSES

_KINDS = 1 + max(each.kind for each in PASSES)
_GAIN = 5.0
"""Parameters of a distribution move faster than weights of a convolution."""

_LEAST_SCALE = 0.05
_LEAST_CHANCE = 1e-9


class RateModel(nn.Module):
    """Latents float32 [n, channels, h, w] in steps to the bits of each item, [n]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(_KINDS, channels))
        self.centre = nn.Parameter(torch.zeros(_KINDS, channels))
        self.spread = nn.Parameter(torch.full((_KINDS, channels), 0.1))
        self.growth = nn.Parameter(torch.zeros(_KINDS, channels))

    def forward(self, latents: Tensor) -> Tensor:
        padded = functional.pad(latents, (1, 1, 1, 1))
        total = latents.new_zeros(latents.shape[0])
        for each in PASSES:
            own = latents[:, :, each.row :: 2, each.column :: 2]
            rows, columns = own.shape[2:]
            around = torch.zeros_like(own)
            for down, right in each.around:
                row, column = each.row + 1 + down, each.column + 1 + right
                shifted = padded[:, :, row : row + 2 * rows : 2, column : column + 2 * columns : 2]
                around = around + shifted[:, :, :rows, :columns] / len(each.around)
            total = total + self._bits(own, around, kind=each.kind)
        return total

    def _bits(self, own: Tensor, around: Tensor, *, kind: int) -> Tensor:
        slope, centre, spread, growth = (
            _GAIN * each[kind][:, None, None]
            for each in (self.slope, self.centre, self.spread, self.growth)
        )
        scale = (
            _LEAST_SCALE
            + functional.softplus(spread)
            + functional.softplus(growth - 2) * around.abs()
        )
        away = (own - centre - slope * around).abs()
        # The chance of a step's width, from the tail that does not cancel.
        near, far = (0.5 - away) / scale, (-0.5 - away) / scale
        chance = torch.sigmoid(near) - torch.sigmoid(far)
        return -chance.clamp_min(_LEAST_CHANCE).log2().sum((1, 2, 3))

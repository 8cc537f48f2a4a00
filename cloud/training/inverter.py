"""A net that rebuilds a picture from what crossed the link.

Dosovitskiy and Brox, "Inverting visual representations with convolutional networks" (CVPR 2016):
a decoder trained on pairs of features and pictures answers in one run with what is most likely to
have been there. Ours widens the grid of the features step by step to that of the picture.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Shape = tuple[int, ...]

_VECTOR_GRID = 4
"""Sides of the map that a vector is spread to."""
_WIDEST = 6
"""Times the width at the picture's own size."""
_TOKENS_BESIDE = 2
_GRAIN = 8


class Inverter(nn.Module):
    """float32 [n, elements], the tensors of a cut one after the other, to pictures [n, 3, s, s].

    Pictures are in 0..1. `shapes` are the tensors', channels last; each value is taken in standard
    deviations of its channel, which `observe` learns.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, shapes: Sequence[Shape], *, size_px: int, width: int) -> None:
        super().__init__()
        self._maps = [each for shape in shapes for each in _maps(shape)]
        start = min(max(grid for grid, _ in self._maps), size_px)
        sizes = _sizes(max(start, min(_VECTOR_GRID, size_px)), size_px)
        widths = [_channels(size, size_px=size_px, width=width) for size in sizes]
        self.stems = nn.ModuleList(
            _Stem(grid, channels, into=widths[0], size=sizes[0]) for grid, channels in self._maps
        )
        levels: list[nn.Module] = [_Residual(widths[0]), _Residual(widths[0])]
        for size, narrow, wide in zip(sizes[1:], widths[1:], widths[:-1], strict=True):
            levels += [_Widen(wide, narrow, size=size), _Residual(narrow)]
        self.levels = nn.Sequential(*levels)
        self.paint = nn.Conv2d(widths[-1], 3, 3, padding=1)
        elements = sum(grid * grid * channels for grid, channels in self._maps)
        self.register_buffer("mean", torch.zeros(elements))
        self.register_buffer("deviation", torch.ones(elements))

    def observe(self, values: Tensor) -> None:
        """Takes mean and deviation of each channel from examples [n, elements]."""
        means, deviations = [], []
        for part, (grid, channels) in zip(self._split(values), self._maps, strict=True):
            by_channel = part.reshape(-1, channels).double()
            places = grid * grid
            means.append(by_channel.mean(0).repeat(places))
            deviations.append(by_channel.std(0).clamp(min=1e-3).repeat(places))
        self.mean.copy_(torch.cat(means))
        self.deviation.copy_(torch.cat(deviations))

    def forward(self, values: Tensor) -> Tensor:
        parts = self._split((values - self.mean) / self.deviation)
        maps = torch.stack([stem(part) for stem, part in zip(self.stems, parts, strict=True)])
        pictures: Tensor = torch.sigmoid(self.paint(self.levels(maps.sum(0))))
        return pictures

    def _split(self, values: Tensor) -> tuple[Tensor, ...]:
        sizes = [grid * grid * channels for grid, channels in self._maps]
        parts: tuple[Tensor, ...] = torch.split(values, sizes, dim=1)
        return parts


class _Stem(nn.Module):
    """One tensor as a map of the first level; a vector is spread over a small grid first."""

    def __init__(self, grid: int, channels: int, *, into: int, size: int) -> None:
        super().__init__()
        self._grid, self._channels, self._size = grid, channels, size
        self._spread = grid == 1
        self._into = into
        self.enter: nn.Module = (
            nn.Linear(channels, into * _VECTOR_GRID**2)
            if self._spread
            else nn.Conv2d(channels, into, 1)
        )

    def forward(self, values: Tensor) -> Tensor:
        if self._spread:
            maps = self.enter(values).reshape(-1, self._into, _VECTOR_GRID, _VECTOR_GRID)
        else:
            maps = values.reshape(-1, self._grid, self._grid, self._channels).permute(0, 3, 1, 2)
            maps = self.enter(maps)
        return _resized(maps, self._size)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, maps: Tensor) -> Tensor:
        changed: Tensor = self.layers(maps)
        return maps + changed


class _Widen(nn.Module):
    """To fewer channels and a finer grid."""

    def __init__(self, into: int, out: int, *, size: int) -> None:
        super().__init__()
        self._size = size
        self.narrow = nn.Conv2d(into, out, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return _resized(self.narrow(maps), self._size)


def _resized(maps: Tensor, size: int) -> Tensor:
    if maps.shape[-1] == size:
        return maps
    return functional.interpolate(maps, (size, size), mode="bilinear", align_corners=False)


def _maps(shape: Shape) -> list[tuple[int, int]]:
    """The square maps, (side, channels), that a tensor holds, channels last; a vector is 1 x 1.

    A transformer's tokens are a map of the picture behind one or two of their own.

    >>> _maps((17, 17, 88)), _maps((1280,)), _maps((197, 768))
    ([(17, 88)], [(1, 1280)], [(1, 768), (14, 768)])
    """
    if len(shape) == 3 and shape[0] == shape[1]:
        return [(shape[0], shape[2])]
    if len(shape) == 2:
        side = math.isqrt(shape[0])
        beside = shape[0] - side * side
        if beside <= _TOKENS_BESIDE:
            return [(1, shape[1])] * beside + [(side, shape[1])]
    return [(1, math.prod(shape))]


def _sizes(start: int, end: int) -> list[int]:
    """Each twice the one before, the last as asked for.

    >>> _sizes(9, 128), _sizes(128, 128)
    ([9, 18, 36, 72, 128], [128])
    """
    sizes = [start]
    while 2 * sizes[-1] < end:
        sizes.append(2 * sizes[-1])
    return sizes if sizes[-1] == end else [*sizes, end]


def _channels(size: int, *, size_px: int, width: int) -> int:
    """As many that each level takes as much work as the last, up to a limit."""
    wanted = min(width * size_px / size, width * _WIDEST)
    return _GRAIN * max(1, round(wanted / _GRAIN))

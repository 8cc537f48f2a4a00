"""How alike two pictures look: the structural similarity index."""

import math

import torch
from torch import Tensor
from torch.nn import functional

WINDOW_PX = 11
"""The smallest side a picture may have."""
_SIGMA_PX = 1.5
_C1, _C2 = 0.01**2, 0.03**2
_HEIGHTS = [math.exp(-((at - WINDOW_PX // 2) ** 2) / (2 * _SIGMA_PX**2)) for at in range(WINDOW_PX)]
_WEIGHTS = [height / sum(_HEIGHTS) for height in _HEIGHTS]


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """SSIM of each pair, float [n]; 1 for equal pictures. Differentiable.

    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment" (IEEE Transactions on Image
    Processing 13(4), 2004): Gaussian window of 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, the mean
    over all places where the window lies inside the picture, then over channels. Takes float
    [n, c, h, w] in 0..1; ValueError for pictures smaller than the window.

    >>> black, white = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)
    >>> [round(float(ssim(black, each)), 4) for each in (black, white)]
    [1.0, 0.0001]
    """
    if one.shape != other.shape or one.ndim != 4 or min(one.shape[2:]) < WINDOW_PX:
        raise ValueError(f"pictures of {list(one.shape)} and {list(other.shape)} are not compared")
    mean_one, mean_other = _blurred(one), _blurred(other)
    variance_one = _blurred(one * one) - mean_one**2
    variance_other = _blurred(other * other) - mean_other**2
    covariance = _blurred(one * other) - mean_one * mean_other
    luminance = (2 * mean_one * mean_other + _C1) / (mean_one**2 + mean_other**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_one + variance_other + _C2)
    return (luminance * structure).mean((1, 2, 3))


def _blurred(pictures: Tensor) -> Tensor:
    """The window's weighted mean at each place, one axis after the other."""
    channels = pictures.shape[1]
    window = torch.tensor(_WEIGHTS, dtype=pictures.dtype, device=pictures.device)
    rows = window.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = window.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    across = functional.conv2d(pictures, rows, groups=channels)
    return functional.conv2d(across, columns, groups=channels)

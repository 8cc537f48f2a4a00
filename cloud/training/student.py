"""Students: a net of inverted residuals that int8 suits, or a given backbone with a new head.

Sandler et al., "MobileNetV2" (CVPR 2018), in the stages of EfficientNet-Lite0: ReLU6, whose range
is known beforehand, no squeeze-and-excitation, whose ranges differ from picture to picture.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...shared.errors import BuildError
from .layers import convolution

_STEM = 32
_TOP = 1280
_GRAIN = 8
_DROPOUT = 0.1


@dataclass(frozen=True)
class _Stage:
    expand: int
    channels: int
    blocks: int
    stride: int
    kernel: int


_STAGES = (
    _Stage(1, 16, 1, 1, 3),
    _Stage(6, 24, 2, 2, 3),
    _Stage(6, 40, 2, 2, 5),
    _Stage(6, 80, 3, 2, 3),
    _Stage(6, 112, 3, 1, 5),
    _Stage(6, 192, 4, 2, 5),
    _Stage(6, 320, 1, 1, 3),
)


class Student(nn.Module):
    """float32 [n, 3, s, s] to logits [n, classes]: features and a linear head."""

    def __init__(self, features: nn.Module, *, width: int, classes: int) -> None:
        super().__init__()
        self.features = features
        self.dropout = nn.Dropout(_DROPOUT)
        self.head = nn.Linear(width, classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.features(pictures)))
        return logits


class _Pooled(nn.Module):
    """A net's last feature map, averaged over the picture."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pictures: Tensor) -> Tensor:
        pooled: Tensor = self.net(pictures).mean((2, 3))
        return pooled


class _InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow without a nonlinearity; around it where shapes allow."""

    def __init__(self, into: int, stage: _Stage, *, out: int, stride: int) -> None:
        super().__init__()
        wide = into * stage.expand
        layers = [convolution(into, wide, 1)] if stage.expand != 1 else []
        layers.append(convolution(wide, wide, stage.kernel, stride=stride, groups=wide))
        layers.append(convolution(wide, out, 1, activation=False))
        self.layers = nn.Sequential(*layers)
        self.around = stride == 1 and into == out

    def forward(self, maps: Tensor) -> Tensor:
        filtered: Tensor = self.layers(maps)
        return maps + filtered if self.around else filtered


def make_student(*, width: float, depth: float, classes: int) -> Student:
    """A student at a share of EfficientNet-Lite0's channels and blocks, weights by torch's seed.

    >>> net = make_student(width=0.5, depth=0.6, classes=4)
    >>> round(sum(weights.numel() for weights in net.parameters()) / 1e6, 2)
    0.73
    """
    stem = _scaled(_STEM, width)
    layers: list[nn.Module] = [convolution(3, stem, 3, stride=2)]
    into = stem
    for stage in _STAGES:
        out = _scaled(stage.channels, width)
        for block in range(max(1, math.ceil(stage.blocks * depth))):
            stride = stage.stride if block == 0 else 1
            layers.append(_InvertedResidual(into, stage, out=out, stride=stride))
            into = out
    top = _scaled(_TOP, width)
    layers.append(convolution(into, top, 1))
    return Student(_Pooled(nn.Sequential(*layers)), width=top, classes=classes)


def student_of(backbone: nn.Module, *, size_px: int, classes: int) -> Student:
    """A student whose features are those below a backbone's last linear layer, which is dropped.

    BuildError unless the backbone takes [n, 3, size, size] and then gives [n, features].
    """
    _drop_last_linear(backbone)
    try:
        with torch.inference_mode():
            features = backbone.eval()(torch.zeros(2, 3, size_px, size_px))
    except (RuntimeError, TypeError, ValueError) as error:
        raise BuildError(
            f"the backbone does not take pictures [n, 3, {size_px}, {size_px}]: {error}"
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        shape = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise BuildError(f"the backbone gives {shape}; features [n, width] are needed")
    return Student(backbone, width=features.shape[1], classes=classes)


def freeze_below(net: nn.Module, *, tuned: float) -> None:
    """Lets only the last share of a net's weight tensors learn."""
    weights = list(net.parameters())
    fixed = round(len(weights) * (1 - tuned))
    for position, each in enumerate(weights):
        each.requires_grad_(position >= fixed)


def _drop_last_linear(module: nn.Module) -> None:
    linear = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    if not linear:
        return
    path = linear[-1].split(".")
    chain = [module]
    for name in path[:-1]:
        chain.append(chain[-1].get_submodule(name))
    setattr(chain[-1], path[-1], nn.Identity())


def _scaled(channels: int, width: float) -> int:
    """To a multiple of 8, never more than a tenth below what was asked for."""
    wanted = channels * width
    grains = max(1, round(wanted / _GRAIN))
    return _GRAIN * (grains + 1 if grains * _GRAIN < 0.9 * wanted else grains)

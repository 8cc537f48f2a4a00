"""The one layer that our nets are made of."""

from torch import nn


def convolution(
    into: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    """Convolution, norm, and ReLU6, whose range is known before int8 is chosen."""
    layers: list[nn.Module] = [
        nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
    ]
    nn.init.kaiming_normal_(layers[0].weight, mode="fan_out")  # type: ignore[arg-type]
    return nn.Sequential(*layers, *([nn.ReLU6()] if activation else []))

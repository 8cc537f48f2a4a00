"""Makes the yardstick nets of devices/boards: `python scripts/make_yardstick.py FOLDER`.

Made anew they are another yardstick: reference.json must then be measured again with them.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hybridge.cloud.compiler.litert import convert_module
from hybridge.cloud.compiler.quantization.tflite import quantize

SIDE_PX = 112


def separable(inputs: int, outputs: int, *, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs),
        nn.ReLU6(),
        nn.Conv2d(inputs, outputs, 1),
        nn.ReLU6(),
    )


def net() -> nn.Module:
    """The first layers of a MobileNet: small, and of the work that heads are made of."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1),
        nn.ReLU6(),
        separable(32, 64, stride=1),
        separable(64, 64, stride=1),
        separable(64, 96, stride=2),
        separable(96, 96, stride=1),
    ).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    shape = (SIDE_PX, SIDE_PX, 3)
    model = convert_module(net(), shape=shape)
    tensors = [
        np.random.default_rng(seed).standard_normal((1, *shape)).astype(np.float32)
        for seed in range(4)
    ]
    (folder / "yardstick-float.tflite").write_bytes(model)
    (folder / "yardstick-int8.tflite").write_bytes(quantize(model, tensors))


if __name__ == "__main__":
    main()

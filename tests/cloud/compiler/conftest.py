"""One small net with a plain, a depthwise and a residual part, converted once."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from onnx import ModelProto
from torch import nn

from hybridge.cloud.compiler.litert import Floats, convert_module
from hybridge.cloud.compiler.onnx_source import export_module
from hybridge.cloud.compiler.quantization.tflite import quantize

SIZE_PX = 16
SHAPE = (SIZE_PX, SIZE_PX, 3)
CLASSES = 5


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: converts a real model, half a minute or more")


class SmallNet(nn.Module):
    """Stem, depthwise block with a way around it, pooling, classifier: 6 single-tensor cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU6())
        self.project = nn.Conv2d(8, 8, 1)
        self.widen = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU())
        self.classify = nn.Linear(12, CLASSES)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        stem = self.stem(pictures)
        residual = stem + self.project(self.depthwise(stem))
        logits: torch.Tensor = self.classify(self.widen(residual).mean((2, 3)))
        return logits


@dataclass(frozen=True)
class Converted:
    module: nn.Module
    onnx: ModelProto
    float32: bytes
    int8: bytes
    tensors: list[Floats]


def make_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return SmallNet().eval()


def make_tensors(count: int, *, seed: int = 0) -> list[Floats]:
    values = np.random.default_rng(seed).uniform(-1, 1, (count, 1, *SHAPE))
    return list(values.astype(np.float32))


@pytest.fixture(scope="session")
def converted() -> Converted:
    module = make_net()
    tensors = make_tensors(8)
    float32 = convert_module(module, shape=SHAPE)
    return Converted(
        module=module,
        onnx=export_module(module, shape=SHAPE),
        float32=float32,
        int8=quantize(float32, tensors),
        tensors=tensors,
    )

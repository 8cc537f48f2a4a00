"""Tiny nets with the parts of well-known families, for 16 px pictures and 5 classes."""

import torch
from torch import Tensor, nn

from .conftest import CLASSES


class ResidualNet(nn.Module):
    """As a ResNet: batch norms, a strided shortcut, a padded maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.block = nn.Sequential(
            nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=1, bias=False),
            nn.BatchNorm2d(12),
        )
        self.shortcut = nn.Conv2d(8, 12, 1, stride=2)
        self.classify = nn.Linear(12, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        pooled = self.pool(self.stem(pictures))
        residual = torch.relu(self.block(pooled) + self.shortcut(pooled))
        logits: Tensor = self.classify(
            torch.flatten(nn.functional.adaptive_avg_pool2d(residual, 1), 1)
        )
        return logits


class MobileNet(nn.Module):
    """As a MobileNetV3: hard swishes, depthwise convolutions, squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Hardswish())
        self.depthwise = nn.Sequential(
            nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.BatchNorm2d(8), nn.Hardswish()
        )
        self.excite = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(8, 4, 1),
            nn.ReLU(),
            nn.Conv2d(4, 8, 1),
            nn.Hardsigmoid(),
        )
        self.project = nn.Conv2d(8, 8, 1)
        self.classify = nn.Sequential(
            nn.Linear(8, 12), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(12, CLASSES)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        stem = self.stem(pictures)
        deep = self.depthwise(stem)
        mixed = stem + self.project(deep * self.excite(deep))
        logits: Tensor = self.classify(mixed.mean((2, 3)))
        return logits


class DenseNet(nn.Module):
    """As a DenseNet: concatenations, norms before convolutions, average pools, probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.grow = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(8 + 4 * i), nn.ReLU(), nn.Conv2d(8 + 4 * i, 4, 3, padding=1)
            )
            for i in range(2)
        )
        self.narrow = nn.Sequential(nn.BatchNorm2d(16), nn.PReLU(16), nn.Conv2d(16, 8, 1))
        self.pool = nn.AvgPool2d(3, 2, padding=1, ceil_mode=True)
        self.classify = nn.Linear(8, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        features = self.stem(pictures)
        for layer in self.grow:
            features = torch.cat([features, layer(features)], 1)
        pooled = self.pool(self.narrow(features))
        return torch.softmax(self.classify(pooled.mean((2, 3))), -1)


class VisionTransformer(nn.Module):
    """As a ViT: patches, a class token, attention of two heads, layer norms, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Parameter(torch.randn(1, 17, 16))
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(3))
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mix = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.classify = nn.Linear(16, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.patches(pictures).flatten(2).transpose(1, 2)
        token = self.token.expand(patches.shape[0], -1, -1)
        tokens = torch.cat([token, patches], 1) + self.position
        seen = self.norms[0](tokens)
        tokens = tokens + self.attend(seen, seen, seen, need_weights=False)[0]
        tokens = tokens + self.mix(self.norms[1](tokens))
        logits: Tensor = self.classify(self.norms[2](tokens)[:, 0])
        return logits


class TwoBranches(nn.Module):
    """As an Inception block or late fusion: two narrow waists, joined wide."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU())
        self.left, self.right = self._branch(2), self._branch(3)
        self.classify = nn.Linear(24, CLASSES)

    @staticmethod
    def _branch(waist: int) -> nn.Module:
        narrow = nn.Sequential(nn.Conv2d(24, waist, 3, stride=2, padding=1), nn.ReLU())
        return nn.Sequential(*narrow, nn.Conv2d(waist, 12, 3, padding=1), nn.ReLU())

    def forward(self, pictures: Tensor) -> Tensor:
        stem = self.stem(pictures)
        both = torch.cat([self.left(stem), self.right(stem)], 1)
        logits: Tensor = self.classify(both.mean((2, 3)))
        return logits


class UShape(nn.Module):
    """As a U-Net with a narrow way across, and an early output on the way down."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.across = nn.Sequential(nn.Conv2d(8, 1, 1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(8, 4, 3, stride=2, padding=1), nn.ReLU())
        self.early = nn.Linear(4, 2)
        self.up = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Upsample(None, 2))
        self.last = nn.Sequential(nn.Conv2d(9, 6, 3, padding=1), nn.ReLU())
        self.classify = nn.Linear(6, CLASSES)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        first = self.first(pictures)
        down = self.down(first)
        joined = torch.cat([self.across(first), self.up(down)], 1)
        return self.classify(self.last(joined).mean((2, 3))), self.early(down.mean((2, 3)))


class ChannelsLast(nn.Module):
    """A net that takes [n, h, w, c], as TensorFlow's do."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.net(pictures.permute(0, 3, 1, 2))
        return logits


def make(kind: type[nn.Module], *, seed: int = 0) -> nn.Module:
    """A net in eval mode whose norms have statistics of their own."""
    torch.manual_seed(seed)
    net = kind()
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_(0, 0.2)
                part.running_var.uniform_(0.5, 2)
    return net.eval()

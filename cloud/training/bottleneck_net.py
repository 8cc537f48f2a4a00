"""A learned bottleneck: a small encoder, latents that cross the link, and a decoder.

The encoder takes the place of a large model's early layers and runs on the device; the decoder
turns what crosses into the features that the rest of the model, which stays as it is, was trained
on (Matsubara et al., "Entropic Student", arXiv 2203.08875; Furutanpey et al., "FrankenSplit",
arXiv 2302.10681).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import convolution
from .rate import RateModel

_WIDEST = 6
"""Times the encoder's width: halving the picture once more doubles channels up to there."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """What the decoder has to make: float32 [n, channels, side, side], none negative if `relu`.

    `scale` is the root of their mean square. `halvings` is how often a picture's side is halved.
    """

    channels: int
    side: int
    halvings: int
    scale: float
    relu: bool


class Residual(nn.Module):
    """Two convolutions around which the maps also pass unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            convolution(channels, channels, 3),
            convolution(channels, channels, 3, activation=False),
        )

    def forward(self, maps: Tensor) -> Tensor:
        changed: Tensor = self.layers(maps)
        return maps + changed


class Encoder(nn.Module):
    """Pictures float32 [n, 3, s, s] to latents [n, channels, side, side]; a step of them is one."""

    def __init__(self, *, halvings: int, width: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        into = 3
        for halving in range(halvings):
            out = width * min(2**halving, _WIDEST)
            layers.append(convolution(into, out, 3, stride=2))
            if halving:
                layers.append(Residual(out))
            into = out
        self.layers = nn.Sequential(*layers, nn.Conv2d(into, channels, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        latents: Tensor = self.layers(pictures)
        return latents


class Decoder(nn.Module):
    """Latents [n, channels, side, side] to features."""

    def __init__(self, features: Features, *, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [convolution(channels, width, 3)]
        layers += [Residual(width) for _ in range(blocks)]
        layers.append(nn.Conv2d(width, features.channels, 1))
        if features.relu:
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)
        self.scale = features.scale

    def forward(self, latents: Tensor) -> Tensor:
        features: Tensor = self.layers(latents) * self.scale
        return features


class Bottleneck(nn.Module):
    """All that is trained; `price` is loss per byte that is sent, and is found on the way.

    `steps` counts those that it has learned in.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, *, channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.rate = RateModel(channels)
        self.register_buffer("price", torch.tensor(_FIRST_PRICE))
        self.register_buffer("steps", torch.tensor(0))
        self.price: Tensor
        self.steps: Tensor

    def follow(self, sent_bytes: float, *, wanted: float) -> None:
        """Sending more than is wanted makes bytes dearer, sending less cheaper."""
        off = max(-1.0, min(1.0, sent_bytes / wanted - 1))
        self.price.mul_(1 + _PRICE_STEP * off)


def on_grid(latents: Tensor, *, offset: Tensor | None = None) -> Tensor:
    """Rounded to whole steps from an offset [n, channels, 1, 1], gradients passing as if not.

    The coder's grids begin where they like, so that in training offsets are drawn.
    """
    offset = torch.zeros(()) if offset is None else offset
    rounded = (latents + offset).round() - offset
    return latents + (rounded - latents).detach()


def drawn_offset(latents: Tensor) -> Tensor:
    """One for each item and channel, in [-0.5, 0.5)."""
    return torch.rand(*latents.shape[:2], 1, 1, device=latents.device) - 0.5


_FIRST_PRICE = 1e-5
_PRICE_STEP = 0.03

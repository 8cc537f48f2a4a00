"""What the coder will take, as a net can be trained on it."""

import numpy as np
import pytest
import torch

from hybridge.cloud.compiler.grid_fit import fit_grids
from hybridge.cloud.training.rate import RateModel
from hybridge.shared.codec.channels import ChannelCoder


def smooth_symbols(count: int, *, seed: int) -> torch.Tensor:
    """Whole steps [n, 4, 15, 15] in which neighbours are alike, channels of different spread."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(count, 4, 17, 17)) * np.array([0.4, 0.8, 1.5, 3.0])[:, None, None]
    alike = (noise[..., :-2, :-2] + noise[..., 1:-1, 1:-1] + noise[..., 2:, 2:]) / np.sqrt(3)
    return torch.from_numpy(np.rint(alike).astype(np.float32))


def learned(symbols: torch.Tensor) -> RateModel:
    torch.manual_seed(0)
    model = RateModel(symbols.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.04)
    for _ in range(60):
        optimizer.zero_grad()
        model(symbols).mean().backward()
        optimizer.step()
    return model


def test_it_reckons_what_the_coder_takes() -> None:
    symbols = smooth_symbols(24, seed=1)
    unseen = smooth_symbols(16, seed=2)
    model = learned(symbols)
    with torch.no_grad():
        reckoned = float(model(unseen).mean()) / 8
    codes = (symbols * 8).permute(0, 2, 3, 1).numpy().astype(np.int8)
    grids = fit_grids(codes, sensitivity=np.ones(4), bits=_entropy_bits(symbols))
    coder = ChannelCoder(grids, codes.shape[1:])
    other = (unseen * 8).permute(0, 2, 3, 1).numpy().astype(np.int8)
    coded = np.mean([len(coder.encode(each)) for each in other])
    assert reckoned == pytest.approx(coded, rel=0.25)


def test_what_is_alike_around_makes_it_cheaper() -> None:
    symbols = smooth_symbols(24, seed=3)
    shuffled = symbols.flatten(2)[..., torch.randperm(225, generator=torch.manual_seed(0))]
    model = learned(symbols)
    with torch.no_grad():
        assert float(model(symbols).mean()) < 0.97 * float(model(shuffled.view_as(symbols)).mean())


def test_bits_are_finite_and_have_slopes_however_unlikely() -> None:
    latents = torch.full((1, 2, 3, 3), 1e4, requires_grad=True)
    bits = RateModel(2)(latents)
    assert torch.isfinite(bits).all()
    (slope,) = torch.autograd.grad(bits.sum(), latents)
    assert torch.isfinite(slope).all()


def _entropy_bits(symbols: torch.Tensor) -> float:
    """Order 0, per value, every channel by itself."""
    total = 0.0
    for channel in symbols.unbind(1):
        _, counts = channel.unique(return_counts=True)
        shares = counts / channel.numel()
        total -= float((shares * shares.log2()).sum())
    return total / symbols.shape[1]

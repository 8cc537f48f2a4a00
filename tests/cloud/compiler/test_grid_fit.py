import numpy as np
import pytest

from hybridge.cloud.compiler.grid_fit import fit_grids
from hybridge.shared.codec.channels import ChannelCoder
from hybridge.shared.codec.grids import SILENT

from ...shared.grids import smooth_tensors

SHAPE = (16, 16, 24)


def symbols_of(grids: object, tensors: np.ndarray) -> np.ndarray:
    row = np.arange(tensors.shape[-1]) << 8
    return grids.symbol_of.ravel()[tensors.view(np.uint8) + row]  # type: ignore[attr-defined]


def entropy_bits(symbols: np.ndarray) -> float:
    """Per value, every channel by itself."""
    flat = symbols.reshape(-1, symbols.shape[-1])
    bits = 0.0
    for own in flat.T:
        _, counts = np.unique(own, return_counts=True)
        bits -= float((counts / own.size * np.log2(counts / own.size)).sum())
    return bits / flat.shape[1]


@pytest.mark.parametrize("bits", [1.0, 2.0, 3.5])
def test_grids_take_the_bits_that_were_asked_for(bits: float) -> None:
    tensors = smooth_tensors(8, SHAPE, seed=1)
    grids = fit_grids(tensors, sensitivity=np.ones(24), bits=bits)
    assert entropy_bits(symbols_of(grids, tensors)) == pytest.approx(bits, rel=0.1)


@pytest.mark.parametrize("bits", [2.0, 3.5])
def test_the_coder_is_near_the_entropy_of_noise_without_context(bits: float) -> None:
    random = np.random.default_rng(4)
    noise = random.normal(size=(8, 32, 32, 24)) * np.geomspace(3, 30, 24)
    tensors = np.clip(np.rint(noise), -128, 127).astype(np.int8)
    grids = fit_grids(tensors, sensitivity=np.ones(24), bits=bits)
    payload = ChannelCoder(grids, tensors.shape[1:]).encode(tensors[0])
    own = entropy_bits(symbols_of(grids, tensors)) * tensors[0].size / 8
    assert len(payload) < 1.05 * own


def test_what_matters_more_gets_a_finer_step() -> None:
    tensors = np.clip(30 * smooth_tensors(4, SHAPE, widest=1.0001).astype(int), -128, 127)
    tensors = tensors.astype(np.int8)
    sensitivity = np.repeat([1.0, 100.0], 12)
    grids = fit_grids(tensors, sensitivity=sensitivity, bits=1.5)
    assert (grids.step[:12] / grids.step[12:]).mean() == pytest.approx(10, rel=0.1)


def test_zero_behind_a_relu_is_a_point_of_the_grid() -> None:
    tensors = np.maximum(smooth_tensors(6, SHAPE, seed=2), 0)
    tensors = (tensors.astype(np.int16) - 128).clip(-128, 127).astype(np.int8)
    grids = fit_grids(tensors, sensitivity=np.ones(24), bits=1.0)
    decoded = ChannelCoder(grids, SHAPE).decode(ChannelCoder(grids, SHAPE).encode(tensors[0]))
    assert (decoded[tensors[0] == -128] == -128).all()


def test_a_channel_that_never_changes_is_not_sent() -> None:
    tensors = smooth_tensors(4, SHAPE)
    tensors[..., 5] = 17
    grids = fit_grids(tensors, sensitivity=np.ones(24), bits=2.0)
    assert grids.group[5] == SILENT
    assert (ChannelCoder(grids, SHAPE).decode(ChannelCoder(grids, SHAPE).encode(tensors[0])))[
        ..., 5
    ].tolist() == tensors[0][..., 5].tolist()


@pytest.mark.parametrize("shape", [(40,), (9, 6), (1, 1, 30), (2, 5, 4, 3)])
def test_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    tensors = random.integers(-128, 128, (8, *shape)).astype(np.int8)
    grids = fit_grids(tensors, sensitivity=np.ones(shape[-1]), bits=4.0)
    coder = ChannelCoder(grids, shape)
    decoded = coder.decode(coder.encode(tensors[0]))
    off = np.abs(decoded.astype(int) - tensors[0]).reshape(-1, shape[-1]).max(axis=0)
    assert (off <= grids.step / 32 + 1).all()


def test_tensors_that_never_change_are_nothing() -> None:
    tensors = np.full((4, 3, 3, 2), 9, np.int8)
    grids = fit_grids(tensors, sensitivity=np.zeros(2), bits=2.0)
    assert ChannelCoder(grids, (3, 3, 2)).encode(tensors[0]) == b""

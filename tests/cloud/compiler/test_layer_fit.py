"""Coarse grids and what refines them: as fine as the plain codec, in parts of like size."""

import numpy as np
import numpy.typing as npt
import pytest

from hybridge.cloud.compiler.grid_fit import fit_grids
from hybridge.cloud.compiler.layer_fit import fit_layers
from hybridge.shared.codec.channels import ChannelCoder, Channels
from hybridge.shared.codec.layers import LayerCoder, Layers
from hybridge.shared.codec.thirds import LAYERS

from ...shared.grids import smooth_tensors

SHAPE = (12, 10, 24)
TENSORS = smooth_tensors(24, SHAPE)
KNOWN, NEW = TENSORS[:16], TENSORS[16:]


def mean_square(made: npt.NDArray[np.generic], wanted: npt.NDArray[np.int8]) -> float:
    return float(np.mean((made.astype(float) - wanted.astype(float)) ** 2))


@pytest.mark.parametrize("bits", [1.5, 2.5])
def test_all_layers_are_as_fine_as_the_plain_codec_for_a_few_bytes_more(bits: float) -> None:
    ones = np.ones(SHAPE[-1])
    plain = Channels(
        [ChannelCoder(fit_grids(KNOWN, sensitivity=ones, bits=bits), SHAPE)], tenths=20
    )
    layered = Layers(
        [LayerCoder(*fit_layers(KNOWN, sensitivity=ones, bits=bits), SHAPE)], tenths=20
    )
    sizes, errors = np.zeros(2), np.zeros(2)
    for tensor in NEW:
        for at, codec in enumerate((plain, layered)):
            payload = codec.encode(tensor)
            made = codec.decode(payload, shape=SHAPE, dtype="INT8")
            sizes[at] += len(payload)
            errors[at] += mean_square(made, tensor)
    assert errors[1] == pytest.approx(errors[0], rel=0.2)
    assert sizes[1] < 1.15 * sizes[0]


def test_what_spares_the_answer_most_comes_first() -> None:
    """Ten channels that count a hundred times as much are refined before the others."""
    sensitivity = np.ones(SHAPE[-1])
    sensitivity[::3] = 100.0
    _, thirds = fit_layers(KNOWN, sensitivity=sensitivity, bits=2.5)
    refined = thirds.layer > 0
    assert thirds.layer[refined & (sensitivity > 1)].mean() < thirds.layer[refined].mean()
    assert set(thirds.layer[refined]) <= set(range(1, LAYERS))


def test_a_channel_that_never_varies_is_never_refined() -> None:
    still = KNOWN.copy()
    still[..., 5] = 17
    grids, thirds = fit_layers(still, sensitivity=np.ones(SHAPE[-1]), bits=2.0)
    assert thirds.layer[5] == 0
    codec = Layers([LayerCoder(grids, thirds, SHAPE)], tenths=20)
    made = codec.decode_layers(codec.encode_layers(still[0])[:1], shape=SHAPE, dtype="INT8")
    assert (made[..., 5] == 17).all()

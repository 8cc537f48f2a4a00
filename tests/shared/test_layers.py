"""Layers: every prefix decodes, each is better than the one before, and all cost what one does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridge.cloud.compiler.layer_fit import fit_layers
from hybridge.shared.codec import codec_by_name, codec_by_wire_id
from hybridge.shared.codec.layers import LayerCoder, Layers, name_of, tenths_of
from hybridge.shared.codec.thirds import LAYERS, Thirds
from hybridge.shared.contract import Contract
from hybridge.shared.errors import FrameError

from .codecs import check_refuses_damage, check_takes_only, round_trip
from .grids import smooth_tensors
from .layered import CODEC, Layered, all_layered, layers_of, made_of
from .layered_frames import SHAPE, TENSORS, contract_of_two, layered_contract

OWN = layered_contract()


@pytest.mark.parametrize("layered", all_layered(), ids=lambda each: each.name)
def test_layers_that_were_ever_released_decode(layered: Layered) -> None:
    for count, tensor in enumerate(layered.tensors, start=1):
        start = b"".join(layered.layers[:count])
        np.testing.assert_array_equal(made_of(start, layered.contract), tensor)
    assert len(layered.tensors) == LAYERS


def test_no_fixture_was_lost() -> None:
    assert {each.name for each in all_layered()} >= {CODEC, f"{CODEC}-parts"}


def test_the_encoder_still_writes_the_same() -> None:
    released = {each.name: each for each in all_layered()}
    for name, tensor in (
        (CODEC, TENSORS[0]),
        (f"{CODEC}-parts", np.concatenate([TENSORS[1].ravel(), TENSORS[2].ravel()])),
    ):
        assert layers_of(tensor, released[name].contract) == released[name].layers


@pytest.mark.parametrize("contract", [OWN, contract_of_two()], ids=["one", "two"])
def test_every_layer_makes_it_better(contract: Contract) -> None:
    tensor = np.concatenate([TENSORS[10].ravel(), TENSORS[11].ravel()])
    tensor = tensor[: int(np.prod(contract.shape))].reshape(contract.shape)
    made = Layered.of("", tensor, contract)
    errors = [float(np.mean((each.astype(float) - tensor) ** 2)) for each in made.tensors]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 3


def test_the_payload_in_one_piece_is_the_same_tensor() -> None:
    codec = codec_by_name(CODEC, OWN)
    made = round_trip(codec, TENSORS[9])
    layers = codec.encode_layers(TENSORS[9])
    again = codec.decode_layers(layers, shape=SHAPE, dtype="INT8")
    np.testing.assert_array_equal(made, again)


def test_damage_is_refused() -> None:
    codec = codec_by_name(CODEC, OWN)
    check_takes_only(codec, TENSORS[0].astype(np.float32), TENSORS[0][:-1])
    check_refuses_damage(codec, TENSORS[0])


@settings(max_examples=100)
@given(st.data())
def test_whatever_the_bytes_it_is_a_tensor_or_refused(data: st.DataObject) -> None:
    codec = codec_by_name(CODEC, OWN)
    layers = list(codec.encode_layers(TENSORS[0]))[: data.draw(st.integers(1, LAYERS))]
    which = data.draw(st.integers(0, len(layers) - 1))
    at = data.draw(st.integers(0, len(layers[which]) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=8))
    layers[which] = layers[which][:at] + noise + layers[which][at + len(noise) :]
    try:
        made = codec.decode_layers(layers, shape=SHAPE, dtype="INT8")
    except FrameError:
        return
    assert made.shape == SHAPE
    assert made.dtype == np.int8


@pytest.mark.parametrize("count", [0, LAYERS + 1])
def test_a_wrong_number_of_layers(count: int) -> None:
    codec = codec_by_name(CODEC, OWN)
    layers = [*codec.encode_layers(TENSORS[0]), b""][:count]
    with pytest.raises(FrameError, match="layers of 5"):
        codec.decode_layers(layers, shape=SHAPE, dtype="INT8")


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 2.0, 4.0]))
@settings(max_examples=20)
def test_any_tensor_under_any_fit(seed: int, bits: float) -> None:
    """Values that no calibration has seen come back within the coarse grid's step, as it clips."""
    random = np.random.default_rng(seed)
    shape = tuple(int(side) for side in random.integers(1, 7, 3))
    tensors = smooth_tensors(8, shape, seed=seed)
    grids, thirds = fit_layers(tensors, sensitivity=random.random(shape[-1]) + 0.1, bits=bits)
    coder = LayerCoder(grids, Thirds.parse(thirds.text()), shape)
    tensor = random.integers(-128, 128, shape).astype(np.int8)
    codec = Layers([coder], tenths=20)
    layers = codec.encode_layers(tensor)
    for count in range(1, LAYERS + 1):
        made = codec.decode_layers(layers[:count], shape=shape, dtype="INT8")
        assert made.shape == shape


def test_names_and_wire_ids() -> None:
    codec = codec_by_name(CODEC, OWN)
    assert codec.layer_count == LAYERS
    assert codec_by_wire_id(codec.wire_id, OWN).name == CODEC
    for tenths in range(5, 81, 5):
        assert tenths_of(name_of(tenths)) == tenths
    assert tenths_of("layers-7") is None
    with pytest.raises(ValueError, match="no codec"):
        codec_by_name("layers-30", OWN)


@pytest.mark.parametrize("text", ["", "AAAA", "eJxjYGBgAAAABAAB", "not base64!"])
def test_thirds_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="thirds"):
        Thirds.parse(text)

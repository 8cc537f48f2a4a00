from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hybridge.cloud.compiler.grid_fit import fit_grids
from hybridge.shared.codec import codec_by_name, codec_by_wire_id
from hybridge.shared.codec.channels import ChannelCoder
from hybridge.shared.codec.grids import SILENT, Grids
from hybridge.shared.codec.pco import WIRE_ID, Pco, PcoCoder, name_of, tenths_of
from hybridge.shared.contract import Contract, Part
from hybridge.shared.errors import FrameError
from hybridge.shared.frame import decode_payload, encode_frame, read_header
from hybridge.shared.tensor import Array

from .codecs import check_refuses, check_refuses_damage, check_takes_only, round_trip
from .grids import any_grids, contract_of, nearest_point, smooth_tensors

SHAPE = (9, 7, 12)
TENSORS = smooth_tensors(12, SHAPE)


def grids(bits: float = 2.0) -> Grids:
    return fit_grids(TENSORS[:8], sensitivity=np.ones(SHAPE[-1]), bits=bits)


def contract() -> Contract:
    return contract_of(SHAPE, {tenths: grids(tenths / 10) for tenths in (20, 30)})


OWN = contract()


def pco(made: Grids, shape: tuple[int, ...]) -> Pco:
    return Pco({20: [PcoCoder(made, shape)]}, tenths=20)


@st.composite
def coders(draw: st.DrawFn) -> tuple[Grids, Array]:
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6))
    return draw(any_grids(shape[-1])), draw(hnp.arrays(np.int8, shape))


@given(coders())
def test_every_value_comes_back_as_its_nearest_point(case: tuple[Grids, Array]) -> None:
    made, tensor = case
    np.testing.assert_array_equal(
        round_trip(pco(made, tensor.shape), tensor), nearest_point(made, tensor)
    )


@pytest.mark.parametrize("bits", [1.0, 2.0, 4.0])
def test_it_gives_what_rans_gives(bits: float) -> None:
    made = grids(bits)
    rans = ChannelCoder(made, SHAPE)
    for tensor in TENSORS:
        np.testing.assert_array_equal(
            round_trip(pco(made, SHAPE), tensor), rans.decode(rans.encode(tensor))
        )


@pytest.mark.parametrize("side", [20, 75])
def test_bytes_are_near_the_entropy_of_the_symbols(side: int) -> None:
    """Without prediction, in the large one, and with: 5 % more than the entropy and 100 at most."""
    random = np.random.default_rng(side)
    tensor = np.clip(np.rint(random.normal(size=(side, side, 12)) * 20), -128, 127).astype(np.int8)
    made = fit_grids(tensor[None], sensitivity=np.ones(12), bits=3.0)
    symbols = ChannelCoder(made, tensor.shape).symbols(tensor)
    _, counts = np.unique(symbols, return_counts=True)
    entropy = -(counts * np.log2(counts / counts.sum())).sum() / 8
    assert len(pco(made, tensor.shape).encode(tensor)) < 1.05 * entropy + 100


def test_neighbours_in_a_row_help() -> None:
    random = np.random.default_rng(5)
    rows = np.cumsum(random.normal(size=(20, 20, 12)) * 6, axis=1)
    tensor = np.clip(np.rint(rows), -128, 127).astype(np.int8)
    made = fit_grids(tensor[None], sensitivity=np.ones(12), bits=3.0)
    shuffled = random.permuted(tensor, axis=1)
    codec = pco(made, tensor.shape)
    assert len(codec.encode(tensor)) < 0.95 * len(codec.encode(shuffled))


def test_channels_that_are_never_sent_come_back_as_their_centre() -> None:
    made = grids()
    made = replace(made, group=np.full_like(made.group, SILENT))
    codec = pco(made, SHAPE)
    tensor = TENSORS[0]
    assert len(codec.encode(tensor)) == 3
    np.testing.assert_array_equal(round_trip(codec, tensor), np.broadcast_to(made.centre, SHAPE))
    check_refuses(codec, codec.encode(tensor) + b"x", shape=SHAPE, dtype="INT8")


def test_other_tensors_are_refused() -> None:
    codec = codec_by_name("pco-20", OWN)
    check_takes_only(codec, TENSORS[0].astype(np.float32), TENSORS[0][:-1])
    with pytest.raises(ValueError, match="not those of"):
        PcoCoder(grids(), (9, 7, 11))
    with pytest.raises(ValueError, match="more than"):
        PcoCoder(grids(), (1 << 21, 12))


def test_damage_is_refused() -> None:
    codec = codec_by_name("pco-20", OWN)
    check_refuses_damage(codec, TENSORS[0])
    payload = codec.encode(TENSORS[0])
    check_refuses(codec, payload + b"x", shape=SHAPE, dtype="INT8")
    check_refuses(codec, payload + payload, shape=SHAPE, dtype="INT8")
    for rate in (0, 25, 255):
        check_refuses(codec, bytes([rate]) + payload[1:], shape=SHAPE, dtype="INT8")
    check_refuses(codec, payload[:1] + b"\xff" + payload[2:], shape=SHAPE, dtype="INT8")


@given(st.data())
def test_no_payload_raises_anything_else(data: st.DataObject) -> None:
    codec = codec_by_name("pco-20", OWN)
    payload = bytearray(codec.encode(TENSORS[0]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        if not payload:
            break
    try:
        made = codec.decode(bytes(payload), shape=SHAPE, dtype="INT8")
    except FrameError:
        return
    assert made.shape == SHAPE
    assert made.dtype == np.int8


def test_a_frame_names_its_own_rate() -> None:
    own = OWN
    frame = encode_frame(TENSORS[0], contract=own, codec=codec_by_name("pco-30", own))
    decoded = decode_payload(frame, read_header(frame), contract=own)
    rans = codec_by_name("rans-30", own)
    payload = rans.encode(TENSORS[0])
    np.testing.assert_array_equal(decoded, rans.decode(payload, shape=SHAPE, dtype="INT8"))
    other = codec_by_name("pco-20", own).encode(TENSORS[0])
    assert codec_by_wire_id(WIRE_ID, own).decode(other, shape=SHAPE, dtype="INT8").shape == SHAPE


def test_a_contract_without_the_grids_has_no_such_codec() -> None:
    with pytest.raises(ValueError, match="no codec 'pco-25'"):
        codec_by_name("pco-25", OWN)
    bare = replace(OWN, codecs={"affine4": {"low": -9.0, "high": 9.0}})
    with pytest.raises(ValueError, match="no codec 'pco-20'"):
        codec_by_name("pco-20", bare)
    with pytest.raises(FrameError, match="0xa8 is not part of"):
        codec_by_wire_id(WIRE_ID, bare)


def test_several_tensors_in_one() -> None:
    table = {"rans-20": {"grids": grids().text()}}
    parts = tuple(
        Part(tensor=name, shape=SHAPE, scale=0.1, zero_point=0, codecs=table)
        for name in ("one", "two")
    )
    elements = 2 * TENSORS[0].size
    own = Contract(tensor="both", shape=(elements,), dtype="INT8", model="ab", parts=parts)
    codec = codec_by_name("pco-20", own)
    tensor = np.concatenate((TENSORS[0].ravel(), TENSORS[1].ravel()))
    expected = [nearest_point(grids(), each).ravel() for each in TENSORS[:2]]
    np.testing.assert_array_equal(round_trip(codec, tensor), np.concatenate(expected))
    check_refuses_damage(codec, tensor)


@pytest.mark.parametrize("tenths", [1, 25, 80])
def test_names(tenths: int) -> None:
    assert tenths_of(name_of(tenths)) == tenths


@pytest.mark.parametrize("name", ["pco-0", "pco-81", "pco-025", "pco-", "pco-²", "rans-20"])
def test_no_names(name: str) -> None:
    assert tenths_of(name) is None

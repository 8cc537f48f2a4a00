import base64
import re
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hybridge.cloud.compiler.grid_fit import fit_grids
from hybridge.shared.codec import codec_by_name, codec_by_wire_id
from hybridge.shared.codec.channels import ChannelCoder, Channels, name_of, tenths_of
from hybridge.shared.codec.grids import SILENT, Grids
from hybridge.shared.contract import Contract, Part
from hybridge.shared.errors import FrameCorrupt, FrameError
from hybridge.shared.frame import decode_payload, encode_frame, read_header

from .codecs import check_refuses, check_refuses_damage, check_takes_only, round_trip
from .grids import any_grids, contract_of, nearest_point, smooth_tensors

SHAPE = (9, 7, 12)
TENSORS = smooth_tensors(12, SHAPE)


def grids(bits: float = 2.0) -> Grids:
    return fit_grids(TENSORS[:8], sensitivity=np.ones(SHAPE[-1]), bits=bits)


def contract(bits: float = 2.0) -> Contract:
    return contract_of(SHAPE, {20: grids(bits)})


OWN = contract()


@st.composite
def coders(draw: st.DrawFn) -> tuple[Grids, np.ndarray]:
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6))
    return draw(any_grids(shape[-1])), draw(hnp.arrays(np.int8, shape))


@given(coders())
def test_every_value_comes_back_as_its_nearest_point(case: tuple[Grids, np.ndarray]) -> None:
    made, tensor = case
    codec = Channels([ChannelCoder(made, tensor.shape)], tenths=20)
    np.testing.assert_array_equal(round_trip(codec, tensor), nearest_point(made, tensor))


@given(st.data())
def test_grids_survive_their_text(data: st.DataObject) -> None:
    made = data.draw(any_grids(data.draw(st.integers(1, 20))))
    again = Grids.parse(made.text())
    assert again.text() == made.text()
    for name in ("centre", "step", "group", "edges", "frequencies"):
        np.testing.assert_array_equal(getattr(again, name), getattr(made, name))


def test_smooth_tensors_take_less_than_the_entropy_of_their_symbols() -> None:
    shape = (24, 24, 32)
    tensors = smooth_tensors(10, shape, seed=3)
    made = fit_grids(tensors[:8], sensitivity=np.ones(32), bits=3.0)
    coder = ChannelCoder(made, shape)
    row = np.arange(32) << 8
    for tensor in tensors[8:]:
        symbols = made.symbol_of.ravel()[tensor.view(np.uint8) + row].reshape(-1, 32)
        bits = 0.0
        for own in symbols.T:
            _, counts = np.unique(own, return_counts=True)
            bits -= float((counts * np.log2(counts / own.size)).sum())
        assert len(coder.encode(tensor)) < bits / 8


def test_channels_that_are_never_sent_decode_to_their_centre() -> None:
    made = grids()
    silent = replace(made, group=np.full(SHAPE[-1], SILENT, np.uint8))
    coder = ChannelCoder(silent, SHAPE)
    assert coder.encode(TENSORS[0]) == b""
    np.testing.assert_array_equal(coder.decode(b""), np.broadcast_to(made.centre, SHAPE))
    with pytest.raises(FrameError, match="nothing is sent"):
        coder.decode(b"\0")


def test_parts_are_each_as_if_alone() -> None:
    other = smooth_tensors(8, (3, 4, 5), seed=9)
    tables = (grids(), fit_grids(other, sensitivity=np.ones(5), bits=2.0))
    shapes = (SHAPE, (3, 4, 5))
    parts = tuple(
        Part(
            tensor=f"t{at}",
            shape=shape,
            scale=0.1,
            zero_point=0,
            codecs={"rans-20": {"grids": table.text()}},
        )
        for at, (shape, table) in enumerate(zip(shapes, tables, strict=True))
    )
    size = sum(part.elements for part in parts)
    joined = Contract(tensor="t0+t1", shape=(size,), dtype="INT8", model="ab", parts=parts)
    codec = codec_by_name("rans-20", joined)
    flat = np.concatenate([TENSORS[9].ravel(), other[7].ravel()])
    alone = [
        ChannelCoder(table, shape).decode(ChannelCoder(table, shape).encode(tensor)).ravel()
        for table, shape, tensor in zip(tables, shapes, (TENSORS[9], other[7]), strict=True)
    ]
    np.testing.assert_array_equal(round_trip(codec, flat), np.concatenate(alone))
    check_refuses_damage(codec, flat)
    lengths = (2**32 - 1).to_bytes(4, "little")
    check_refuses(codec, lengths + bytes(99), shape=(size,), dtype="INT8")


def test_a_contract_has_its_codec_by_name_and_by_wire_id() -> None:
    codec = codec_by_name("rans-20", contract())
    assert codec_by_wire_id(codec.wire_id, contract()) is codec
    with pytest.raises(ValueError, match="no codec 'rans-30'"):
        codec_by_name("rans-30", contract())
    with pytest.raises(FrameError, match="not part of contract"):
        codec_by_wire_id(codec.wire_id + 1, contract())


@pytest.mark.parametrize("name", ["rans-0", "rans-020", "rans-81", "rans--1", "rans-", "rans-²"])
def test_names_have_one_spelling(name: str) -> None:
    assert tenths_of(name) is None
    assert all(tenths_of(name_of(tenths)) == tenths for tenths in range(1, 81))


def test_damage_is_refused_or_decodes_to_a_tensor() -> None:
    codec = codec_by_name("rans-20", contract())
    check_refuses_damage(codec, TENSORS[8])
    check_takes_only(codec, TENSORS[8].astype(np.int16), TENSORS[8][1:], TENSORS[8].ravel())
    payload = codec.encode(TENSORS[8])
    check_refuses(codec, payload + b"\0", shape=SHAPE, dtype="INT8")
    check_refuses(codec, payload * 2, shape=SHAPE, dtype="INT8")


def flipped(frame: bytes, at: int) -> bytes:
    return frame[:at] + bytes([frame[at] ^ 0x41]) + frame[at + 1 :]


CHANGES: dict[str, Callable[[bytes, int], bytes]] = {
    "flipped": flipped,
    "cut off": lambda frame, at: frame[:at],
    "repeated": lambda frame, at: frame[: at + 1] + frame[at:],
    "left out": lambda frame, at: frame[:at] + frame[at + 1 :],
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_byte_of_a_frame_counts(change: str) -> None:
    own = contract()
    frame = encode_frame(TENSORS[8], contract=own, codec=codec_by_name("rans-20", own))
    assert decode_payload(frame, read_header(frame), contract=own).shape == SHAPE
    for at in range(len(frame)):
        with pytest.raises((FrameError, FrameCorrupt)):
            read_header(CHANGES[change](frame, at))


def test_a_frame_of_other_grids_is_of_another_contract() -> None:
    own, other = contract(), contract(bits=2.2)
    frame = encode_frame(TENSORS[8], contract=own, codec=codec_by_name("rans-20", own))
    with pytest.raises(FrameError, match="frame is of contract"):
        decode_payload(frame, read_header(frame), contract=other)


@settings(max_examples=60)
@given(st.data())
def test_any_payload_is_refused_or_a_tensor(data: st.DataObject) -> None:
    """Behind a checksum that matches stands whatever a broken encoder made."""
    codec = codec_by_name("rans-20", OWN)
    payload = bytearray(codec.encode(TENSORS[8]))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    kept = bytes(payload[: data.draw(st.integers(0, len(payload)))])
    for each in (bytes(payload), kept):
        try:
            made = codec.decode(each, shape=SHAPE, dtype="INT8")
        except FrameError:
            continue
        assert made.shape == SHAPE
        assert made.dtype == np.int8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"top": np.full(8, 99, np.uint8)}, "a top from 1"),
        ({"top": np.full(8, 1, np.uint8)}, "frequencies are"),
        ({"step": np.zeros(12, np.uint16)}, "a code at least"),
        ({"step": np.full(11, 16, np.uint16)}, "belong to 12 channels"),
        ({"group": np.full(12, 77, np.uint8)}, "does not exist"),
        ({"edges": np.zeros((8, 12), np.int16)}, "ascend"),
        ({"frequencies": np.roll(grids().frequencies, 1, axis=1)}, "and no others"),
    ],
)
def test_grids_check_themselves(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(grids(), **change)  # type: ignore[arg-type]


def bomb() -> str:
    return base64.b64encode(zlib.compress(bytes(1 << 26))).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        "AAAA",
        bomb(),
        base64.b64encode(zlib.compress(b"\1\1\1\xff\xff\xff\xff")).decode(),
    ],
    ids=["nothing", "no base64", "no zlib", "bomb", "4 billion channels"],
)
def test_a_text_that_is_no_grids_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.compile("grids|cut off")):
        Grids.parse(text)


def test_a_cut_off_text_is_refused() -> None:
    raw = zlib.decompress(base64.b64decode(grids().text()))
    for wrong in (raw[:-1], raw[:9], raw + b"\0"):
        with pytest.raises(ValueError, match=r"cut off|followed"):
            Grids.parse(base64.b64encode(zlib.compress(wrong)).decode())


def test_grids_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="not those of"):
        ChannelCoder(grids(), (3, 3, 13))

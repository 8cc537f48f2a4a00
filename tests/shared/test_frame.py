"""Frames: what was once written is read for ever, and what changed on its way never is."""

import json
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hybridge.shared.codec import codec_by_name
from hybridge.shared.contract import Contract
from hybridge.shared.errors import FrameCorrupt, FrameError, TensorError
from hybridge.shared.frame import VERSION, decode_payload, encode_frame, read_header
from hybridge.shared.tensor import DTYPES, Array, from_raw

EXACT = {"raw", "png"}
LOOKS_ALIKE = {"jpeg-75": 3, "webp-75": 3}
"""Levels by which another version of a picture library may decode the same bytes."""

CONTRACT = Contract(
    tensor="relu", shape=(2, 3, 4), dtype="INT8", model="m", scale=0.5, zero_point=3,
    codecs={"affine4": {"low": -128.0, "high": 127.0}},
)  # fmt: skip
TENSOR = np.arange(-12, 12, dtype=np.int8).reshape(CONTRACT.shape)


@dataclass(frozen=True)
class Golden:
    codec: str
    contract: Contract
    frame: bytes
    tensor: Array


def golden_frames() -> list[Golden]:
    """The frames of version 1, written once (frames.json is only ever added to)."""
    stored = json.loads(Path(__file__).with_name("frames.json").read_text())
    assert stored["version"] == 1
    found = []
    for entry in stored["frames"]:
        contract = Contract(**{**entry["contract"], "shape": tuple(entry["contract"]["shape"])})
        raw = bytes.fromhex(entry["tensor"])
        tensor = from_raw(raw, datatype=contract.dtype, shape=contract.shape)
        found.append(Golden(entry["codec"], contract, bytes.fromhex(entry["frame"]), tensor))
    return found


def decode(frame: bytes, contract: Contract) -> Array:
    return decode_payload(frame, read_header(frame), contract=contract)


def frame_of(tensor: Array = TENSOR, *, codec: str = "raw", contract: Contract = CONTRACT) -> bytes:
    return encode_frame(tensor, contract=contract, codec=codec_by_name(codec, contract))


def sealed(frame: bytes, at: int, value: bytes) -> bytes:
    """A frame with other bytes in its header and a checksum that matches them."""
    changed = frame[:at] + value + frame[at + len(value) :]
    crc_at = 40 + 4 * len(CONTRACT.shape) + 4
    crc = zlib.crc32(changed[crc_at + 4 :], zlib.crc32(changed[:crc_at]))
    return changed[:crc_at] + struct.pack("<I", crc) + changed[crc_at + 4 :]


@pytest.mark.parametrize("golden", golden_frames(), ids=lambda g: f"{g.contract.tensor}-{g.codec}")
def test_version_1_is_read_for_ever(golden: Golden) -> None:
    tensor = decode(golden.frame, golden.contract)
    assert tensor.dtype == golden.tensor.dtype
    allowed = LOOKS_ALIKE.get(golden.codec, 0)
    difference = np.abs(tensor.astype(np.float64) - golden.tensor.astype(np.float64))
    assert difference.max() <= allowed


def test_every_codec_has_a_golden_frame() -> None:
    assert VERSION == 1
    assert {golden.codec.partition("-")[0] for golden in golden_frames()} == {
        "raw", "affine2", "affine3", "affine4", "affine8", "jpeg", "webp", "png"
    }  # fmt: skip
    assert {golden.contract.dtype for golden in golden_frames()} == {
        "UINT8", "INT8", "FP32", "FP16"
    }  # fmt: skip


@pytest.mark.parametrize(
    "golden", [g for g in golden_frames() if g.codec == "raw"], ids=lambda g: g.contract.tensor
)
def test_version_1_is_still_written(golden: Golden) -> None:
    assert frame_of(golden.tensor, contract=golden.contract) == golden.frame


def test_layout() -> None:
    payload = TENSOR.tobytes()
    head = b"HYBF" + bytes([1, 0x00, 1, 3]) + CONTRACT.digest
    head += struct.pack("<IIII", 2, 3, 4, len(payload))
    assert frame_of() == head + struct.pack("<I", zlib.crc32(head + payload)) + payload
    header = read_header(frame_of())
    assert (header.codec_wire_id, header.dtype, header.shape) == (0, "INT8", (2, 3, 4))
    assert (header.contract, header.payload_bytes) == (CONTRACT.digest, len(payload))
    assert header.elements == 24


@given(
    st.sampled_from(["UINT8", "INT8", "FP32", "FP16"]).flatmap(
        lambda name: hnp.arrays(DTYPES[name], hnp.array_shapes(max_dims=8, max_side=3))
    )
)
def test_frames_come_back(tensor: npt.NDArray[np.generic]) -> None:
    names = {dtype: name for name, dtype in DTYPES.items()}
    contract = Contract(tensor="t", shape=tensor.shape, dtype=names[tensor.dtype], model="m")
    decoded = decode(frame_of(tensor, contract=contract), contract)
    assert decoded.dtype == tensor.dtype
    np.testing.assert_array_equal(decoded, tensor)


@pytest.mark.parametrize("codec", ["raw", "affine4"])
def test_every_flipped_bit_is_found(codec: str) -> None:
    frame = frame_of(codec=codec)
    corrupt = 0
    for bit in range(8 * len(frame)):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameError) as caught:
            decode(bytes(flipped), CONTRACT)
        corrupt += caught.type is FrameCorrupt
    # All but magic, version, dimensions and length, whose sense is checked first.
    assert corrupt >= 8 * (len(frame) - 4 - 1 - 1 - 4)


def test_every_cut_and_every_byte_too_many_is_found() -> None:
    frame = frame_of(codec="affine4")
    for kept in range(len(frame)):
        with pytest.raises(FrameError):
            read_header(frame[:kept])
    for extra in (b"\0", b"HYBF", frame):
        with pytest.raises(FrameError, match="header says"):
            read_header(frame + extra)


@given(st.binary(max_size=200))
def test_any_bytes(noise: bytes) -> None:
    for frame in (noise, b"HYBF" + noise, b"HYBF\x01" + noise):
        with pytest.raises(FrameError):
            read_header(frame)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (4, b"\x02", "frame version 2; a whole frame is of version 1"),
        (5, b"\x7f", "codec 0x7f is not part of contract"),
        (6, b"\x04", "dtype code 4 is unknown"),
        (6, b"\x00", "frame holds UINT8"),
        (7, b"\x00", "0 dimensions"),
        (7, b"\x09", "9 dimensions"),
        (8, b"\xff" * 32, "frame is of contract ffffffffffff, not"),
        (40, struct.pack("<I", 3), r"frame holds INT8 \[3, 3, 4\]"),
        (40, b"\xff" * 4, r"frame holds INT8 \[4294967295, 3, 4\]"),
        (52, struct.pack("<I", 23), "header says 23 bytes, 24 follow"),
    ],
)
def test_headers_that_lie_under_a_good_checksum(at: int, value: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message) as caught:
        decode(sealed(frame_of(), at, value), CONTRACT)
    assert caught.type is FrameError


def test_sealing_alone_changes_nothing() -> None:
    assert sealed(frame_of(), 5, b"\x00") == frame_of()


def test_another_contract() -> None:
    stranger = replace(CONTRACT, model="of other weights")
    with pytest.raises(FrameError, match="frame is of contract"):
        decode(frame_of(), stranger)


@pytest.mark.parametrize("tensor", [TENSOR.T, TENSOR[:1], TENSOR.view(np.uint8), TENSOR[None]])
def test_only_the_contracts_tensor_is_framed(tensor: Array) -> None:
    with pytest.raises(TensorError, match=r"relu: .* is not INT8 \[2, 3, 4\]"):
        frame_of(tensor)

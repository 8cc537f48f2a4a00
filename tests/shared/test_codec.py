import io
import re
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from hybridge.shared.codec import Codec, codec_by_name, codec_by_wire_id
from hybridge.shared.codec.affine import Affine, AffineParts, Range
from hybridge.shared.codec.picture import Picture, PictureFormat
from hybridge.shared.codec.raw import Raw
from hybridge.shared.contract import Contract, Part
from hybridge.shared.errors import FrameError
from hybridge.shared.tensor import DTYPES

from .codecs import (
    check_exact,
    check_refuses,
    check_refuses_damage,
    check_takes_only,
    check_within,
    round_trip,
)

shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=7)
int8s = hnp.arrays(np.int8, shapes)
PIXELS = Contract(tensor="pixels", shape=(20, 31, 3), dtype="UINT8", model="none")
ALL_CODES = np.arange(-128, 128, dtype=np.int8).reshape(4, 8, 8)


@st.composite
def affines(draw: st.DrawFn) -> tuple[Affine, float, float]:
    low = draw(st.floats(-128, 126.5))
    high = draw(st.floats(low + 0.5, 127))
    return Affine(bits=draw(st.integers(2, 8)), low=low, high=high), low, high


def smooth(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    blots = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), np.uint8)
    image = Image.fromarray(blots).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8)


@given(st.sampled_from([*DTYPES.values()]).flatmap(lambda dtype: hnp.arrays(dtype, shapes)))
def test_raw_is_exact(tensor: npt.NDArray[np.generic]) -> None:
    np.testing.assert_array_equal(round_trip(Raw(), tensor), tensor)


def test_raw_refuses_damage() -> None:
    check_refuses_damage(Raw(), ALL_CODES)


@given(int8s)
def test_affine8_over_all_codes_is_exact(tensor: npt.NDArray[np.int8]) -> None:
    check_exact(Affine(bits=8, low=-128, high=127), tensor)


@given(st.lists(st.tuples(affines(), hnp.arrays(np.int8, shapes)), min_size=2, max_size=4))
def test_parts_are_each_as_if_alone(parts: list[tuple[tuple[Affine, float, float], Any]]) -> None:
    """Whatever the first one's bits; each in its own range."""
    bits = int(parts[0][0][0].name.removeprefix("affine"))
    ranges = [Range(tensor.shape, low, high) for (_, low, high), tensor in parts]
    codec = AffineParts(bits=bits, ranges=ranges)
    flat = np.concatenate([tensor.ravel() for _, tensor in parts])
    alone = [
        round_trip(Affine(bits=bits, low=low, high=high), tensor).ravel()
        for (_, low, high), tensor in parts
    ]
    np.testing.assert_array_equal(round_trip(codec, flat), np.concatenate(alone))


def test_parts_refuse_damage_and_other_sizes() -> None:
    codec = AffineParts(bits=4, ranges=[Range((2, 3), -128, 127), Range((4,), 0, 15)])
    check_refuses_damage(codec, np.arange(10, dtype=np.int8))
    check_takes_only(codec, np.zeros(9, np.int8), np.zeros((2, 5), np.int8), np.zeros(10, np.uint8))


def test_a_contract_of_several_tensors_has_their_codecs() -> None:
    tables = ({"affine4": {"low": 0.0, "high": 15.0}}, {"affine4": {"low": -9.0, "high": 6.0}})
    parts = tuple(
        Part(tensor=f"t{i}", shape=(3,), scale=0.1, zero_point=0, codecs=table)
        for i, table in enumerate(tables)
    )
    contract = Contract(tensor="t0+t1", shape=(6,), dtype="INT8", model="none", parts=parts)
    codec = codec_by_name("affine4", contract)
    tensor = np.array([0, 7, 15, -9, 0, 6], np.int8)
    np.testing.assert_array_equal(round_trip(codec, tensor), tensor)
    assert codec_by_wire_id(codec.wire_id, contract).encode(tensor) == codec.encode(tensor)
    with pytest.raises(ValueError, match="no codec 'affine3'"):
        codec_by_name("affine3", contract)
    lacking = replace(contract, parts=(parts[0], replace(parts[1], codecs={})))
    with pytest.raises(ValueError, match="no codec 'affine4'"):
        codec_by_name("affine4", lacking)


@given(affines(), int8s)
def test_affine_errs_by_half_a_step_and_saturates(
    codec_and_range: tuple[Affine, float, float], tensor: npt.NDArray[np.int8]
) -> None:
    codec, low, high = codec_and_range
    step = (high - low) / (2 ** int(codec.name.removeprefix("affine")) - 1)
    decoded = round_trip(codec, tensor).astype(np.float64)
    # Half a step on the grid, and half a code because the grid's values are rounded to codes.
    nearest = np.clip(tensor.astype(np.float64), low, high)
    assert np.abs(decoded - nearest).max() <= step / 2 + 0.5 + 1e-9
    assert decoded.min() >= round(low) - 1e-9
    assert decoded.max() <= round(high) + 1e-9
    again = round_trip(codec, round_trip(codec, tensor))
    if step >= 1:  # finer, several symbols stand for one code
        np.testing.assert_array_equal(again, decoded)


@pytest.mark.parametrize("bits", range(2, 9))
def test_affine_refuses_damage(bits: int) -> None:
    codec = Affine(bits=bits, low=-100, high=90.5)
    check_refuses_damage(codec, ALL_CODES)
    wrong = (ALL_CODES.astype(np.int16), ALL_CODES.view(np.uint8), np.int8(3).reshape(()))
    check_takes_only(codec, *wrong)


def test_affine_refuses_symbols_it_never_writes() -> None:
    codec = Affine(bits=2, low=0, high=3)
    payload = zstandard.compress(bytes([0, 1, 2, 3]))
    assert codec.decode(payload, shape=(4, 1), dtype="INT8").ravel().tolist() == [0, 1, 2, 3]
    check_refuses(codec, zstandard.compress(bytes([0, 1, 2, 4])), shape=(4, 1), dtype="INT8")


def test_affine_refuses_what_claims_too_much() -> None:
    codec = Affine(bits=4, low=-8, high=7)
    bomb = zstandard.compress(bytes(1 << 26))  # 64 MB in a few kB
    honest = zstandard.compress(bytes(64))
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 26))
    lying = bytearray(bomb)
    lying[4:9] = honest[4:6] + bomb[6:9]  # claims little, holds much
    for payload in (bomb, silent, bytes(lying), honest + b"x", honest + bomb):
        check_refuses(codec, payload, shape=(4, 4, 4), dtype="INT8")


@pytest.mark.parametrize(
    ("bits", "low", "high"),
    [(1, 0, 1), (9, 0, 1), (4, 5, 5), (4, 6, 5), (4, -129, 5), (4, 5, 128), (4, float("nan"), 5)],
)
def test_affine_of_nothing(bits: int, low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"must be 2 to 8|need -128 <= low"):
        Affine(bits=bits, low=low, high=high)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_png_is_exact(pixels: npt.NDArray[np.uint8]) -> None:
    check_exact(Picture(PictureFormat.PNG), pixels)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 16), (20, 31), (64, 48)])
@pytest.mark.parametrize(
    ("name", "psnr_db"),
    [
        ("jpeg-75", 27),
        ("jpeg-95", 32),
        ("webp-75", 27),
        ("webp-90", 30),
        ("avif-60", 27),
        ("avif-90", 32),
    ],
)
def test_lossy_pictures_keep_shape_and_look(
    name: str, psnr_db: float, height: int, width: int
) -> None:
    check_within(codec_by_name(name, PIXELS), smooth(height, width), psnr_db=psnr_db)


def test_quality_costs_bytes() -> None:
    pixels = smooth(64, 64)
    for kind in ("jpeg", "webp", "avif"):
        sizes = [len(codec_by_name(f"{kind}-{q}", PIXELS).encode(pixels)) for q in (10, 50, 90)]
        assert sizes == sorted(sizes)
        assert sizes[0] < sizes[-1]


@pytest.mark.parametrize("name", ["png", "jpeg-90", "webp-90", "avif-90"])
def test_pictures_refuse_damage(name: str) -> None:
    codec, pixels = codec_by_name(name, PIXELS), smooth(8, 12)
    payload = codec.encode(pixels)
    for kept in range(0, len(payload) - 20, 7):
        check_refuses(codec, payload[:kept], shape=pixels.shape, dtype="UINT8")
    check_refuses(codec, b"garbage " * 30, shape=pixels.shape, dtype="UINT8")
    for shape in ((8, 13, 3), (12, 8, 3), (8, 12, 1), (8, 36), (1, 8, 12, 3)):
        check_refuses(codec, payload, shape=shape, dtype="UINT8")
    check_refuses(codec, payload, shape=pixels.shape, dtype="INT8")
    for other in {"png", "jpeg-90", "webp-90", "avif-90"} - {name}:
        foreign = codec_by_name(other, PIXELS)
        check_refuses(foreign, payload, shape=pixels.shape, dtype="UINT8")
    check_takes_only(
        codec, pixels.astype(np.float32), pixels[..., 0], pixels[None], pixels[..., :2],
        np.zeros((0, 4, 3), np.uint8), pixels.view(np.int8),
    )  # fmt: skip


def test_pictures_refuse_what_claims_too_much() -> None:
    codec = Picture(PictureFormat.PNG)
    bomb = io.BytesIO()
    Image.new("RGB", (3000, 3000)).save(bomb, "png")
    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    claim = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    claim += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + bytes(4) + b"IDAT"
    for payload in (bomb.getvalue(), claim):
        check_refuses(codec, payload, shape=(8, 8, 3), dtype="UINT8")


@pytest.mark.parametrize(
    ("name", "wire_id"),
    [("raw", 0x00), ("affine2", 0x12), ("affine4", 0x14), ("affine8", 0x18), ("jpeg-75", 0x20),
     ("jpeg-100", 0x20), ("webp-1", 0x21), ("png", 0x22), ("avif-80", 0x23), ("jxl-75", 0x24),
     ("jxl", 0x24)],
)  # fmt: skip
def test_names_and_wire_ids_are_the_same_for_ever(name: str, wire_id: int) -> None:
    contract = Contract(
        tensor="t", shape=(2, 2, 3), dtype="INT8", model="m", scale=1.0, zero_point=0,
        codecs={f"affine{bits}": {"low": -1.0, "high": 1.0} for bits in (2, 4, 8)},
    )  # fmt: skip
    codec = codec_by_name(name, contract)
    assert (codec.name, codec.wire_id) == (name, wire_id)
    decoder: Codec = codec_by_wire_id(wire_id, contract)
    assert type(decoder) is type(codec)
    assert decoder.wire_id == wire_id


@pytest.mark.parametrize(
    "name",
    ["", "RAW", "affine4", "affine", "affinex", "gif-50", "png-5", "png-", "jpeg", "jpeg-", "webp",
     "jpeg-0", "jpeg-101", "jpeg-x", "jpeg--5", "jpeg-1.5", "jpeg-075", "jxl-0",
     "jxl-", "jpegls"],
)  # fmt: skip
def test_names_that_no_codec_has(name: str) -> None:
    with pytest.raises(ValueError, match="no codec"):
        codec_by_name(name, PIXELS)


@pytest.mark.parametrize("wire_id", [0x01, 0x10, 0x14, 0x19, 0x26, 0xFF])
def test_wire_ids_that_no_codec_has(wire_id: int) -> None:
    with pytest.raises(FrameError, match=re.escape(f"{wire_id:#04x} is not part of contract")):
        codec_by_wire_id(wire_id, PIXELS)


def test_a_fault_names_the_format_and_no_quality() -> None:
    """Which one a picture was encoded with is not in its frame."""
    with pytest.raises(FrameError, match=r"^jpeg payload: no bytes at all"):
        codec_by_wire_id(0x20, PIXELS).decode(b"", shape=PIXELS.shape, dtype="UINT8")

"""JPEG XL: with imagecodecs, and on a machine that does not have it."""

import subprocess
import sys

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hybridge.shared.codec import Codec, codec_by_name
from hybridge.shared.codec.picture import PictureFormat, format_of, formats_here
from hybridge.shared.contract import Contract

from .codecs import check_exact, check_refuses, check_takes_only, check_within
from .test_codec import smooth

NAMES = ("jxl-90", "jxl")
PIXELS = Contract(tensor="pixels", shape=(20, 31, 3), dtype="UINT8", model="none")
Pixels = npt.NDArray[np.uint8]


def codec_of(name: str) -> Codec:
    return codec_by_name(name, PIXELS)


@given(pixels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_what_has_no_quality_is_exact(pixels: Pixels) -> None:
    check_exact(codec_of("jxl"), pixels)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 16), (20, 31), (64, 48)])
@pytest.mark.parametrize(("name", "psnr_db"), [("jxl-60", 25), ("jxl-90", 29), ("jxl-100", 40)])
def test_jxl_keeps_shape_and_look(name: str, psnr_db: float, height: int, width: int) -> None:
    check_within(codec_of(name), smooth(height, width), psnr_db=psnr_db)


def test_quality_costs_bytes() -> None:
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    sizes = [len(codec_of(name).encode(noise)) for name in ("jxl-10", "jxl-50", "jxl-90", "jxl")]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_refused(name: str) -> None:
    codec, pixels = codec_of(name), smooth(8, 12)
    payload = codec.encode(pixels)
    for kept in range(0, len(payload) * 2 // 3, 9):
        check_refuses(codec, payload[:kept], shape=pixels.shape, dtype="UINT8")
    check_refuses(codec, b"garbage " * 30, shape=pixels.shape, dtype="UINT8")
    for shape in ((8, 13, 3), (12, 8, 3), (8, 12, 1), (8, 36), (1, 8, 12, 3)):
        check_refuses(codec, payload, shape=shape, dtype="UINT8")
    check_refuses(codec, payload, shape=pixels.shape, dtype="INT8")
    for other in {"png", "jpeg-90", *NAMES}:
        if format_of(other) is not format_of(name):
            check_refuses(codec_of(other), payload, shape=pixels.shape, dtype="UINT8")
    check_takes_only(
        codec, pixels.astype(np.float32), pixels[..., 0], pixels[None], pixels[..., :2],
        np.zeros((0, 4, 3), np.uint8), pixels.view(np.int8),
    )  # fmt: skip


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2000, 3000, 3), np.uint8),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.uint16),
    ],
    ids=["of more pixels", "grey", "with alpha", "of 16 bits"],
)
def test_another_picture_than_the_contracts_is_refused(pixels: npt.NDArray[np.generic]) -> None:
    """Of few bytes, honest, and 18 MB if one decoded it first."""
    jxl = imagecodecs.jpegxl_encode(pixels, effort=1)
    assert len(jxl) < 3000
    check_refuses(codec_of("jxl"), jxl, shape=(8, 8, 3), dtype="UINT8")


def test_an_animation_is_refused() -> None:
    moving = imagecodecs.jpegxl_encode(np.zeros((3, 8, 8, 3), np.uint8))
    check_refuses(codec_of("jxl"), moving, shape=(8, 8, 3), dtype="UINT8")


def test_formats_of_names() -> None:
    assert format_of("jxl-75") is format_of("jxl") is PictureFormat.JXL
    assert format_of("pco-25") is format_of("raw") is format_of("jxl-0") is None
    assert formats_here() == set(PictureFormat)


_WITHOUT = """
import sys
sys.modules["imagecodecs"] = None  # as where it is not installed
import numpy as np
from hybridge.shared.codec import codec_by_name, codec_by_wire_id
from hybridge.shared.codec.picture import formats_here
from hybridge.shared.contract import Contract
from hybridge.shared.errors import ConfigError, FrameError

pixels = Contract(tensor="pixels", shape=(8, 8, 3), dtype="UINT8", model="none")
assert sorted(formats_here()) == ["avif", "jpeg", "png", "webp"], formats_here()
for name in ("jxl-75", "jxl"):
    codec = codec_by_name(name, pixels)  # a manifest that names it still opens
    try:
        codec.encode(np.zeros((8, 8, 3), np.uint8))
    except ConfigError as error:
        assert "hybridge[pictures]" in str(error), error
    else:
        raise AssertionError(name)
    try:
        codec_by_wire_id(codec.wire_id, pixels).decode(b"x", shape=(8, 8, 3), dtype="UINT8")
    except FrameError as error:
        assert "not read here" in str(error), error
    else:
        raise AssertionError(name)
"""


def test_a_machine_without_the_package() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr

"""JPEG XL files made on purpose: what would be decoded for seconds is refused by its header."""

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridge.shared.codec import codec_by_name
from hybridge.shared.codec.jpeg_xl_header import check_one_frame
from hybridge.shared.contract import Contract
from hybridge.shared.errors import FrameError

SIDE = 16
BLACK = np.zeros((SIDE, SIDE, 3), np.uint8)
PIXELS = Contract(tensor="pixels", shape=BLACK.shape, dtype="UINT8", model="none")
FRAME = 5
"""The byte at which the frame of a lossless black square begins, and the bit that ends the frames;
only the names' length, all filters' and the table's few bits lie between it and whole bytes."""
IS_LAST = 56


def lossless() -> bytes:
    return bytes(imagecodecs.jpegxl_encode(BLACK, lossless=True, effort=5, numthreads=1))


def bits_of(data: bytes) -> list[int]:
    return [byte >> at & 1 for byte in data for at in range(8)]


def bytes_of(bits: list[int]) -> bytes:
    padded = bits + [0] * (-len(bits) % 8)
    return np.packbits(padded, bitorder="little").tobytes()


def layered(jxl: bytes, layers: int) -> bytes:
    """The same picture with so many layers more beneath it, each a whole frame that is not last."""
    bits = bits_of(jxl)
    names, no_filters = bits[IS_LAST + 1 : IS_LAST + 3], bits[IS_LAST + 3]
    assert (bits[IS_LAST], names, no_filters) == (1, [0, 0], 0), "the encoder writes other headers"
    after = IS_LAST + 1 + 2 + 1 + 1 + 2 + 2 + 2 + 1  # name, filters, extensions twice, the table's
    not_last = [0, 0, 0, 0]  # then what it is saved as, and before which transform
    header = bytes_of(bits[8 * FRAME : IS_LAST] + not_last + bits[IS_LAST + 1 : after])
    layer = header + jxl[-(-after // 8) :]
    return jxl[:FRAME] + layer * layers + jxl[FRAME:]


@pytest.mark.parametrize("layers", [1, 3000])
def test_layers_are_refused_before_they_are_decoded(layers: int) -> None:
    made = layered(lossless(), layers)
    assert len(made) < 20 * (layers + 2)
    with pytest.raises(FrameError, match="more than one frame"):
        codec_by_name("jxl", PIXELS).decode(made, shape=BLACK.shape, dtype="UINT8")
    if layers == 1:  # it is a picture, which the package would decode layer by layer
        assert (imagecodecs.jpegxl_decode(made) == BLACK).all()


@pytest.mark.parametrize(
    ("bits", "why"),
    [
        ((26,), "an animation"),
        ((27,), "more than 8 bits"),
        ((31,), "more channels"),
        ((34, 35), "a colour profile"),
        ((35,), "extensions"),
        ((37,), "a transform of its own"),
        ((FRAME * 8 + 1,), "not shown"),
        ((FRAME * 8 + 4,), "splines"),
        ((FRAME * 8 + 5,), "splines"),
        ((FRAME * 8 + 6,), "YCbCr"),
        ((FRAME * 8 + 11,), "more than one pass"),
        ((FRAME * 8 + 13,), "another size"),
        ((FRAME * 8 + 14,), "over each other"),
        ((IS_LAST,), "more than one frame"),
    ],
)
def test_only_one_plain_frame_is_let_through(bits: tuple[int, ...], why: str) -> None:
    changed = bits_of(lossless())
    assert check_one_frame(bytes_of(changed)) == (SIDE, SIDE)
    for bit in bits:
        changed[bit] ^= 1
    with pytest.raises(FrameError, match=why):
        check_one_frame(bytes_of(changed))


def test_a_header_that_ends_and_a_container_are_refused() -> None:
    jxl = lossless()
    for kept in range((IS_LAST + 1) // 8 + 1):
        with pytest.raises(FrameError, match=r"ends within its header|no bare"):
            check_one_frame(jxl[:kept])
    boxed = imagecodecs.jpegxl_encode(BLACK, usecontainer=True)
    with pytest.raises(FrameError, match="no bare"):
        check_one_frame(bytes(boxed))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    quality=st.one_of(st.none(), st.integers(1, 100)),
    effort=st.integers(1, 6),
)
def test_what_the_package_writes_is_let_through(
    height: int, width: int, quality: int | None, effort: int
) -> None:
    pixels = np.full((height, width, 3), 77, np.uint8)
    pixels[::3, ::2] = (20, 200, 90)
    made = imagecodecs.jpegxl_encode(
        pixels, level=quality, lossless=quality is None, effort=effort, numthreads=1
    )
    assert check_one_frame(bytes(made)) == (height, width)

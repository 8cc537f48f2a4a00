"""A frame in layers while it arrives, in whatever pieces."""

import itertools
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridge.shared.arrival import Arrival
from hybridge.shared.codec import codec_by_name
from hybridge.shared.errors import FrameCorrupt, FrameError
from hybridge.shared.frame import codec_of, decode_layers, encode_frame, read_layers_header
from hybridge.shared.tensor import Array

from .layered import CODEC, layers_of
from .layered_frames import TENSORS, layered_contract

CONTRACT = layered_contract()


def decoded(frame: bytes) -> Array:
    made = Arrival(frame)
    return decode_layers(made.layers, made.header, contract=CONTRACT)


LAYERS = layers_of(TENSORS[0], CONTRACT)
FRAME = b"".join(LAYERS)
HEADER = read_layers_header(FRAME)
ENDS = np.cumsum([len(layer) for layer in LAYERS]).tolist()


@given(st.lists(st.integers(HEADER.header_bytes, len(FRAME)), max_size=12))
def test_layers_are_there_once_they_are_whole(cuts: list[int]) -> None:
    ends = sorted({HEADER.header_bytes, *cuts})
    arrival = Arrival(FRAME[: ends[0]])
    for start, end in itertools.pairwise(ends):
        arrival.add(FRAME[start:end])
        assert len(arrival.layers) == sum(whole <= end for whole in ENDS)
        assert arrival.came_bytes == end
        assert (
            b"".join(arrival.layers)
            == FRAME[HEADER.header_bytes :][: sum(map(len, arrival.layers))]
        )
    assert arrival.complete == (ends[-1] == len(FRAME))


def test_more_than_the_header_says_is_not_kept() -> None:
    arrival = Arrival(FRAME)
    with pytest.raises(FrameError, match="more bytes"):
        arrival.add(b"\0")
    with pytest.raises(FrameError, match="more bytes"):
        Arrival(FRAME + b"\0")


@settings(max_examples=200)
@given(st.integers(0, len(FRAME) - 1), st.integers(1, 255))
def test_a_changed_byte_is_never_believed(at: int, other: int) -> None:
    changed = FRAME[:at] + bytes([FRAME[at] ^ other]) + FRAME[at + 1 :]
    with pytest.raises(FrameError):
        decoded(changed)


@given(st.binary(max_size=300))
def test_any_bytes(noise: bytes) -> None:
    with pytest.raises(FrameError):
        Arrival(noise)


@pytest.mark.parametrize("kept", range(HEADER.header_bytes))
def test_a_header_that_is_cut_off(kept: int) -> None:
    with pytest.raises(FrameError):
        Arrival(FRAME[:kept])


def sealed(sizes: list[int], *, count: int | None = None, codec: int | None = None) -> bytes:
    """A header with a checksum that fits, and layers of these sizes to come."""
    at = 40 + 4 * len(CONTRACT.shape)
    start = bytearray(FRAME[:at])
    if codec is not None:
        start[5] = codec
    start += struct.pack("<I", len(sizes) if count is None else count)
    for size in sizes:
        start += struct.pack("<II", size, 0)
    return bytes(start) + struct.pack("<I", zlib.crc32(start))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (sealed([]), "0 layers; 1 to 32"),
        (sealed([1] * 33), "33 layers; 1 to 32"),
        (sealed([1] * 4), "4 layers; layers-25 has 5"),
        (sealed([1, 1, 1, 1, 2**31]), "at most [0-9]+ make sense"),
        (sealed([1] * 5, codec=0x7F), "codec 0x7f is not part"),
    ],
)
def test_sizes_that_make_no_sense(header: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        codec_of(read_layers_header(header), CONTRACT)


def test_a_layer_whose_checksum_is_wrong() -> None:
    arrival = Arrival(sealed([2, 0, 0, 0, 0]))
    with pytest.raises(FrameCorrupt, match="layer 0"):
        arrival.add(b"ab")


def test_a_whole_frame_is_not_one_in_layers() -> None:
    codec = codec_by_name(CODEC, CONTRACT)
    frame = encode_frame(TENSORS[0], contract=CONTRACT, codec=codec)
    with pytest.raises(FrameError, match=re.escape("frame version 1; one in layers is of")):
        Arrival(frame)


def test_nothing_is_kept_of_one_that_was_closed() -> None:
    arrival = Arrival(FRAME[: ENDS[2]])
    assert len(arrival.layers) == 3
    arrival.close()
    arrival.add(FRAME[ENDS[2] :])
    assert arrival.layers == []
    assert arrival.came_bytes == len(FRAME)
    with pytest.raises(FrameError, match="more bytes"):
        arrival.add(b"\0")

"""Whole numbers as bytes by pcodec: compiled, and nearly as few as their entropy.

pcodec (Apache-2.0; github.com/pcodec/pcodec) codes numbers by tANS with tables of its own, which
travel along: some 20 bytes for each array. What decoding needs is in the bytes, and all of it is
integer arithmetic.

    header   two bytes, of pcodec's format and its version
    chunks   of each array pcodec's chunk metadata, then one page; nothing between them
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec
from pcodec.wrapped import FileCompressor, FileDecompressor

from ..errors import FrameError

MOST_VALUES = 1 << 24
"""In one array."""

_TYPES = {np.dtype(np.int8): "i8", np.dtype(np.int16): "i16"}

Numbers = npt.NDArray[np.int8] | npt.NDArray[np.int16]


def packed(arrays: Sequence[Numbers], *, predicted: bool = False) -> bytes:
    """Flat arrays, none of them empty; `predicted`: each number by a multiple of the one before."""
    compressor = FileCompressor()
    pieces: list[bytes] = [compressor.write_header()]
    for values in arrays:
        config = ChunkConfig(
            compression_level=8,
            mode_spec=ModeSpec.classic(),
            delta_spec=DeltaSpec.try_conv1(1) if predicted else DeltaSpec.no_op(),
            paging_spec=PagingSpec.exact_page_sizes([values.size]),
            enable_8_bit=True,
        )
        chunk = compressor.chunk_compressor(values, config)
        pieces += (chunk.write_meta(), chunk.write_page(0))
    return b"".join(pieces)


def unpack(payload: bytes, arrays: Sequence[Numbers]) -> None:
    """Fills contiguous arrays with what was `packed`; FrameError unless it is exactly that."""
    try:
        decompressor, at = FileDecompressor.new(payload)
        for values in arrays:
            chunk, read = decompressor.chunk_decompressor(payload[at:], _TYPES[values.dtype])
            at += read
            progress, read = chunk.read_page_into(payload[at:], values.size, values)
            at += read
            if not progress.finished or progress.n_processed != values.size:
                raise FrameError(f"payload holds {progress.n_processed} of {values.size} symbols")
    except RuntimeError as error:
        raise FrameError(f"payload: {error}") from error
    if at != len(payload):
        raise FrameError(f"payload goes on for {len(payload) - at} bytes behind its end")

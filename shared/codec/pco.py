"""The grids of `rans-N`, coded in a tenth of the time.

The symbols go channel by channel to pcodec (compiled, Apache-2.0; github.com/pcodec/pcodec), which
codes them by tANS with tables of its own, shared by channels of like spread. In tensors that are
not large it predicts each symbol by the one before, with a weight that it fits. All that decoding
needs is in the payload, and it is integer arithmetic.

    tenths   a byte: under which grids
    header   two bytes, of pcodec's format and its version
    chunks   for each set of channels pcodec's chunk metadata, then one page; nothing between them
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec
from pcodec.wrapped import FileCompressor, FileDecompressor

from ..errors import FrameError
from ..tensor import Array
from .base import Codec
from .channels import MAX_TENTHS, MIN_TENTHS
from .grids import SILENT, Grids
from .pieces import Together, joined, parted

WIRE_ID = 0xA8
_SETS = 3
"""Of channels: few, since each brings some 20 bytes of tables along. Part of the format."""

_MOST_VALUES = 1 << 24
_MOST_PREDICTED = (1 << 16) - 1
"""Values: prediction saves 5 to 7 % of the bytes, and both ways would take over a millisecond."""

_INT8 = "i8"

I8 = npt.NDArray[np.int8]
I32 = npt.NDArray[np.int32]


class PcoCoder:
    """Chunks for an int8 tensor [..., C] under its grids, and back."""

    def __init__(self, grids: Grids, shape: tuple[int, ...]) -> None:
        if not shape or shape[-1] != grids.centre.size:
            raise ValueError(f"grids of {grids.centre.size} channels are not those of {shape}")
        self.shape = shape
        self._pixels = int(np.prod(shape[:-1], dtype=np.int64))
        order = np.argsort(grids.group, kind="stable")
        self._order = order[grids.group[order] != SILENT]
        if self._pixels * self._order.size > _MOST_VALUES:
            raise ValueError(f"{shape} is more than {_MOST_VALUES} values")
        predicted = self._pixels * self._order.size <= _MOST_PREDICTED
        self._delta = DeltaSpec.try_conv1(1) if predicted else DeltaSpec.no_op()
        sets = grids.group[self._order].astype(np.int64) * _SETS // grids.groups
        starts = np.searchsorted(sets, np.arange(_SETS + 1)) * self._pixels
        self._sets = [slice(start, end) for start, end in pairwise(starts) if start < end]
        self._symbol_of: I8 = grids.symbol_of[self._order].ravel()
        self._code_of: I8 = grids.code_of[self._order].ravel()
        self._silent: I8 = grids.centre
        self._row: I32 = np.arange(self._order.size, dtype=np.int32)[:, None] << 8

    def encode(self, tensor: I8, compressor: FileCompressor) -> bytes:
        codes = tensor.reshape(self._pixels, -1).T[self._order].view(np.uint8)
        symbols = self._symbol_of.take(codes + self._row).ravel()
        pieces: list[bytes] = []
        for own in self._sets:
            config = _config(own.stop - own.start, self._delta)
            chunk = compressor.chunk_compressor(symbols[own], config)
            pieces += (chunk.write_meta(), chunk.write_page(0))
        return b"".join(pieces)

    def decode(self, payload: bytes, decompressor: FileDecompressor) -> I8:
        """The int8 tensor; FrameError unless the payload is exactly one."""
        symbols = np.empty((self._order.size, self._pixels), np.int8)
        flat, at = symbols.ravel(), 0
        for own in self._sets:
            count = own.stop - own.start
            try:
                chunk, read = decompressor.chunk_decompressor(payload[at:], _INT8)
                at += read
                progress, read = chunk.read_page_into(payload[at:], count, flat[own])
                at += read
            except RuntimeError as error:
                raise FrameError(f"payload: {error}") from error
            if not progress.finished or progress.n_processed != count:
                raise FrameError(f"payload holds {progress.n_processed} of {count} symbols")
        if at != len(payload):
            raise FrameError(f"payload goes on for {len(payload) - at} bytes behind its end")
        tensor = np.empty((self._pixels, self.shape[-1]), np.int8)
        tensor[...] = self._silent
        tensor[:, self._order] = self._code_of.take(symbols.view(np.uint8) + self._row).T
        return tensor.reshape(self.shape)


class Pco(Codec):
    """`PcoCoder` at so many tenths of a bit per value, of one int8 tensor or several as one.

    It decodes frames of every rate in `coders`, which are by tenths.
    """

    wire_id = WIRE_ID

    def __init__(self, coders: Mapping[int, Sequence[PcoCoder]], *, tenths: int) -> None:
        self.name = name_of(tenths)
        self._tenths = tenths
        self._coders = coders
        shapes = [coder.shape for coder in coders[tenths]]
        self._together = Together(shapes, name=self.name)

    def encode(self, tensor: Array) -> bytes:
        parts = self._together.split(tensor)
        compressor = FileCompressor()
        coders = self._coders[self._tenths]
        pieces = [coder.encode(part, compressor) for coder, part in zip(coders, parts, strict=True)]
        header: bytes = compressor.write_header()
        return bytes([self._tenths]) + header + joined(pieces)

    def decode(self, payload: bytes, *, shape: tuple[int, ...], dtype: str) -> Array:
        self._together.check(shape=shape, dtype=dtype)
        coders = self._coders.get(payload[0]) if payload else None
        if coders is None:
            raise FrameError(f"{self.name} payload of a rate that the contract does not have")
        rest = payload[1:]
        try:
            decompressor, read = FileDecompressor.new(rest)
        except RuntimeError as error:
            raise FrameError(f"payload: {error}") from error
        parts = parted(rest[read:], len(coders), name=self.name)
        return self._together.join(
            [coder.decode(part, decompressor) for coder, part in zip(coders, parts, strict=True)]
        )


def _config(values: int, delta: DeltaSpec) -> ChunkConfig:
    return ChunkConfig(
        compression_level=8,
        mode_spec=ModeSpec.classic(),
        delta_spec=delta,
        paging_spec=PagingSpec.exact_page_sizes([values]),
        enable_8_bit=True,
    )


def name_of(tenths: int) -> str:
    """The codec's name; tenths of a bit are those of `rans-N`, whose grids it takes."""
    return f"pco-{tenths}"


def tenths_of(name: str) -> int | None:
    """What `name_of` was given; None if it is no such name."""
    return next((t for t in range(MIN_TENTHS, MAX_TENTHS + 1) if name == name_of(t)), None)

"""Which third of its step a value lies in: what makes a coarse grid three times as fine.

A grid's points are three times as far apart as those of the fine one, and every third fine point is
a coarse one: what was sent coarsely is refined by -1, 0 or 1 and never sent again (embedded
quantization: Taubman and Marcellin, JPEG2000, 2002, 3.2.7). Channels are refined in layers, the
most significant first. A third is coded by what the coarse symbols say of it: the value's own size,
and the sum of the eight around it, both of which all are known.
"""

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .grids import MAX_CHANNELS, SILENT, Grids
from .packed import packed_text, unpacked
from .rans import TOTAL

LAYERS = 5
"""Of a frame: the coarse symbols, then the channels' thirds in four parts. Part of the format."""
SIZES, SUMS = 3, 3
_EDGES = (1, 3)
_VERSION = 1
_HEAD = struct.Struct("<BHI")
_MAX_BYTES = 1 << 20

I8 = npt.NDArray[np.int8]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Thirds:
    """How each of C channels is refined.

    `layer` [C] says with which layer, 1 to LAYERS - 1, or 0 for never. `frequencies`
    [(groups + 1) * SIZES * SUMS, 3] sum to 256 each, for -1, 0 and 1, where 1 points away from
    the centre, or to where the neighbours lie. The grids' silent channels are one more group.
    """

    layer: U8
    frequencies: U8

    def __post_init__(self) -> None:
        if self.layer.ndim != 1 or not 1 <= self.layer.size <= MAX_CHANNELS:
            raise ValueError(f"layers of {self.layer.shape} channels")
        if (self.layer >= LAYERS).any():
            raise ValueError(f"channels are refined in layers 1 to {LAYERS - 1}")
        groups, rest = divmod(len(self.frequencies), SIZES * SUMS)
        if self.frequencies.shape != (groups * SIZES * SUMS, 3) or rest or not groups:
            raise ValueError(f"frequencies of thirds are {self.frequencies.shape}")
        if (self.frequencies == 0).any():
            raise ValueError("a third that is never sent")
        if (self.frequencies.sum(axis=1, dtype=np.int64) != TOTAL).any():
            raise ValueError(f"the frequencies of a table sum to {TOTAL}")

    def text(self) -> str:
        """All of it as a contract holds it."""
        head = _HEAD.pack(_VERSION, len(self.frequencies), self.layer.size)
        raw = head + self.layer.tobytes() + self.frequencies.tobytes()
        return packed_text(raw)

    @classmethod
    def parse(cls, text: str) -> "Thirds":
        """What `text` wrote; ValueError if that is not it."""
        raw = unpacked(text, most_bytes=_MAX_BYTES, what="thirds")
        try:
            version, tables, channels = _HEAD.unpack_from(raw)
        except struct.error as error:
            raise ValueError(f"the thirds of a contract: {error}") from None
        if version != _VERSION or len(raw) != _HEAD.size + channels + 3 * tables:
            raise ValueError(f"thirds of version {version}, {tables} tables, {len(raw)} bytes")
        found = np.frombuffer(raw, np.uint8, offset=_HEAD.size)
        return cls(layer=found[:channels], frequencies=found[channels:].reshape(tables, 3))


def third_of(grids: Grids) -> I8:
    """The third [C, 256] of a channel's code, by the code's own byte: -1, 0 or 1.

    Of a silent channel it is that of the centre's step: nothing else of it is known.
    """
    codes = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int64)
    away = (codes - grids.centre[:, None].astype(np.int64)) * 16
    step = grids.step[:, None].astype(np.int64)
    off = away - step * np.where(grids.group == SILENT, 0, grids.symbol_of.T).T
    thirds: I8 = (np.sign(off) * (6 * np.abs(off) > step)).astype(np.int8)
    return thirds


def fine_code_of(grids: Grids) -> I8:
    """The code [C, 1024] of a channel's fine symbol n, three times the coarse one, at n + 512."""
    fine = np.arange(-512, 512, dtype=np.int64)
    size = (np.abs(fine) * grids.step[:, None].astype(np.int64) + 24) // 48
    codes: I8 = np.clip(grids.centre[:, None] + np.sign(fine) * size, -128, 127).astype(np.int8)
    return codes


def surroundings(symbols: I8, grids: Grids) -> tuple[I32, I8]:
    """For coarse symbols [h, w, C] the table of each value's third, and the side that is its 1."""
    height, width, channels = symbols.shape
    padded = np.zeros((height + 2, width + 2, channels), np.int16)
    padded[1:-1, 1:-1] = symbols
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    around = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] - symbols
    side = np.sign(symbols)
    side[side == 0] = np.sign(around[side == 0]).astype(np.int8)
    side[side == 0] = 1
    size = np.minimum(np.abs(symbols), SIZES - 1).astype(np.int32)
    along = around * side
    sums = (along >= _EDGES[0]).astype(np.int32) + (along >= _EDGES[1])
    group = np.where(grids.group == SILENT, grids.groups, grids.group).astype(np.int32)
    return (group * SIZES + size) * SUMS + sums, side

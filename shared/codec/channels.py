"""As few bytes as the answer needs: a grid for every channel, contexts, rANS.

An int8 tensor is requantized channel by channel, as finely as the answer depends on the channel
(grids.py), and its symbols are coded by frequencies that were learned for the channel's kind and
for what surrounds the pixel (neighbours.py, rans.py). Decoding returns int8 values again, so one
tail serves every rate.

    states   2 N bytes, N = lanes_of(elements sent)
    stream   what the coder reads
    excess   a byte for each symbol at the top of the tables; the first N are the coder's seeds
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..errors import FrameError
from ..tensor import Array
from .base import Codec
from .grids import SILENT, Grids
from .neighbours import Pass, Plane
from .pieces import Together, joined, parted
from .rans import Decoder, Encoder, Tables, lanes_of

WIRE_ID_BASE = 0x40
MIN_TENTHS, MAX_TENTHS = 1, 80

I8 = npt.NDArray[np.int8]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]


class ChannelCoder:
    """Bytes for an int8 tensor [..., C] under its grids, and back."""

    def __init__(self, grids: Grids, shape: tuple[int, ...]) -> None:
        if not shape or shape[-1] != grids.centre.size:
            raise ValueError(f"grids of {grids.centre.size} channels are not those of {shape}")
        self.shape = shape
        self._grids = grids
        self._sent = np.flatnonzero(grids.group != SILENT)
        self.width = shape[-2] if len(shape) > 1 else 1
        self.height = int(np.prod(shape[:-2], dtype=np.int64)) if len(shape) > 2 else 1
        self.elements = self.height * self.width * self._sent.size
        self._tables = Tables(grids.frequencies)
        self.lanes = lanes_of(self.elements)
        row = np.arange(shape[-1], dtype=np.int32) << 8
        self._row = row
        group = grids.group[self._sent].astype(np.int32)
        self._group = group
        self._top: I16 = grids.top[group].astype(np.int16)
        reach = 4 * grids.reach
        sums = np.arange(-reach, reach + 1)
        bins = np.stack([np.searchsorted(own, sums, side="right") for own in grids.edges])
        self._bins: I32 = bins.astype(np.int32).ravel()
        self._bin_at: I32 = group * sums.size + reach
        self._table_at: tuple[I32, ...] = (
            group,
            grids.groups + group * grids.bins,
            grids.groups * (1 + grids.bins) + group * grids.bins,
        )

    def encode(self, tensor: I8) -> bytes:
        plane, more = self.split(tensor)
        if not self.elements:
            return b""
        seeds = np.zeros(self.lanes, np.uint8)
        seeds[: more.size] = more[: self.lanes]
        coder = Encoder(self._tables, lanes=self.lanes, seeds=seeds)
        self.push(coder, plane)
        return coder.finish() + more[self.lanes :].tobytes()

    def decode(self, payload: bytes) -> I8:
        """The int8 tensor; FrameError unless the payload is exactly one."""
        symbols = np.zeros((self.height, self.width, self.shape[-1]), np.int8)
        if self.elements:
            coder = Decoder(self._tables, payload, lanes=self.lanes)
            plane = self.pull(coder)
            seeds, rest = coder.finish()
            count = self.excess_count(plane)
            if rest.size != max(0, count - seeds.size) or seeds[count:].any():
                raise FrameError(f"payload holds other than the excess of {count} symbols")
            symbols = self.joined(plane, np.concatenate((seeds, rest))[:count])
        elif payload:
            raise FrameError("payload of a tensor of which nothing is sent")
        found = symbols.view(np.uint8) + self._row
        return self._grids.code_of.ravel().take(found).reshape(self.shape)

    def symbols(self, tensor: I8) -> I8:
        """Those of all channels, [height, width, C]."""
        rows = tensor.view(np.uint8).reshape(self.height, self.width, -1)
        return self._grids.symbol_of.ravel().take(rows + self._row)

    def split(self, tensor: I8) -> tuple[Plane, U8]:
        """The symbols that are sent, as far as the tables go, and the excess of those beyond."""
        symbols = self.symbols(tensor)[..., self._sent]
        excess = np.abs(symbols.astype(np.int16)) - self._top
        plane = Plane(self.height, self.width, self._sent.size)
        plane.symbols[...] = np.clip(symbols, -self._top, self._top)
        return plane, excess[excess >= 0].astype(np.uint8)

    def joined(self, plane: Plane, excess: U8) -> I8:
        """What `symbols` were before `split`; FrameError for those that no value has."""
        full = plane.symbols.copy()
        edge = np.abs(full) == self._top
        full[edge] += np.sign(full[edge]) * excess
        if (np.abs(full) > 127).any():
            raise FrameError("payload holds symbols that no value has")
        symbols = np.zeros((self.height, self.width, self.shape[-1]), np.int8)
        symbols[..., self._sent] = full
        return symbols

    def excess_count(self, plane: Plane) -> int:
        """How many symbols an excess follows."""
        return int(np.count_nonzero(np.abs(plane.symbols) == self._top))

    def push(self, coder: Encoder, plane: Plane) -> None:
        """Hands the symbols to a coder whose first tables are those of the grids."""
        for each in reversed(list(plane.passes())):
            own = (plane.of(each) + self._grids.reach).astype(np.uint8)
            coder.push(own.ravel(), self._tables_of(plane, each).ravel())

    def pull(self, coder: Decoder) -> Plane:
        """The symbols as `push` gave them."""
        plane = Plane(self.height, self.width, self._sent.size)
        for each in plane.passes():
            tables = self._tables_of(plane, each)
            pulled = coder.pull(tables.ravel()).reshape(tables.shape)
            plane.of(each)[...] = pulled.astype(np.int16) - self._grids.reach
        return plane

    def _tables_of(self, plane: Plane, each: Pass) -> I32:
        """Which table codes each symbol of a pass."""
        base = self._table_at[each.kind]
        if not each.around:
            return np.ascontiguousarray(np.broadcast_to(base, plane.of(each).shape))
        return self._bins.take(plane.sums(each) + self._bin_at, mode="clip") + base


class Channels(Codec):
    """`ChannelCoder` at so many tenths of a bit per value, of one int8 tensor or several as one.

    Of several each has its own grids, and its bytes stand behind their length.
    """

    def __init__(self, coders: Sequence[ChannelCoder], *, tenths: int) -> None:
        if not MIN_TENTHS <= tenths <= MAX_TENTHS:
            raise ValueError(f"tenths of a bit are {MIN_TENTHS} to {MAX_TENTHS}, not {tenths}")
        self.name = name_of(tenths)
        self.wire_id = WIRE_ID_BASE + tenths
        self._coders = list(coders)
        self._together = Together([coder.shape for coder in coders], name=self.name)

    def encode(self, tensor: Array) -> bytes:
        parts = self._together.split(tensor)
        return joined([coder.encode(p) for coder, p in zip(self._coders, parts, strict=True)])

    def decode(self, payload: bytes, *, shape: tuple[int, ...], dtype: str) -> Array:
        self._together.check(shape=shape, dtype=dtype)
        parts = parted(payload, len(self._coders), name=self.name)
        return self._together.join(
            [coder.decode(part) for coder, part in zip(self._coders, parts, strict=True)]
        )


def name_of(tenths: int) -> str:
    """The codec's name: tenths of a bit per value, in the mean over calibration pictures."""
    return f"rans-{tenths}"


def tenths_of(name: str) -> int | None:
    """What `name_of` was given; None if it is no such name."""
    text = name.removeprefix("rans-")
    tenths = int(text) if text.isascii() and text.isdecimal() and len(text) < 3 else 0
    return tenths if name == name_of(tenths) and MIN_TENTHS <= tenths <= MAX_TENTHS else None

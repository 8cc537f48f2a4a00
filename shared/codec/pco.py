"""The grids of `rans-N`, coded in a fifth of the time.

The symbols go channel by channel through pcodec (chunks.py), in few sets of channels of like
spread. In tensors that are not large each symbol is predicted by the one before.

    tenths   a byte: under which grids
    chunks   of each set of channels
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..errors import FrameError
from ..tensor import Array
from .base import Codec
from .channels import MAX_TENTHS, MIN_TENTHS
from .chunks import MOST_VALUES, packed, unpack
from .grids import SILENT, Grids
from .pieces import Together, joined, parted

WIRE_ID = 0xA8
_SETS = 3
"""Part of the format."""

_MOST_PREDICTED = (1 << 16) - 1
"""Values: prediction saves 5 to 7 % of the bytes, and both ways would take over a millisecond."""

I8 = npt.NDArray[np.int8]
I32 = npt.NDArray[np.int32]


class PcoCoder:
    """Bytes for an int8 tensor [..., C] under its grids, and back."""

    def __init__(self, grids: Grids, shape: tuple[int, ...]) -> None:
        if not shape or shape[-1] != grids.centre.size:
            raise ValueError(f"grids of {grids.centre.size} channels are not those of {shape}")
        self.shape = shape
        self._pixels = int(np.prod(shape[:-1], dtype=np.int64))
        order = np.argsort(grids.group, kind="stable")
        self._order = order[grids.group[order] != SILENT]
        values = self._pixels * self._order.size
        if values > MOST_VALUES:
            raise ValueError(f"{shape} is more than {MOST_VALUES} values")
        self._predicted = values <= _MOST_PREDICTED
        sets = grids.group[self._order].astype(np.int64) * _SETS // grids.groups
        starts = np.searchsorted(sets, np.arange(_SETS + 1)) * self._pixels
        self._sets = [slice(start, end) for start, end in pairwise(starts) if start < end]
        self._symbol_of: I8 = grids.symbol_of[self._order].ravel()
        self._code_of: I8 = grids.code_of[self._order].ravel()
        self._silent: I8 = grids.centre
        self._row: I32 = np.arange(self._order.size, dtype=np.int32)[:, None] << 8

    def encode(self, tensor: I8) -> bytes:
        codes = tensor.reshape(self._pixels, -1).T[self._order].view(np.uint8)
        symbols = self._symbol_of.take(codes + self._row).ravel()
        return packed([symbols[own] for own in self._sets], predicted=self._predicted)

    def decode(self, payload: bytes) -> I8:
        """The int8 tensor; FrameError unless the payload is exactly one."""
        symbols = np.empty((self._order.size, self._pixels), np.int8)
        flat = symbols.ravel()
        unpack(payload, [flat[own] for own in self._sets])
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
        coders = self._coders[self._tenths]
        pieces = [coder.encode(part) for coder, part in zip(coders, parts, strict=True)]
        return bytes([self._tenths]) + joined(pieces)

    def decode(self, payload: bytes, *, shape: tuple[int, ...], dtype: str) -> Array:
        self._together.check(shape=shape, dtype=dtype)
        coders = self._coders.get(payload[0]) if payload else None
        if coders is None:
            raise FrameError(f"{self.name} payload of a rate that the contract does not have")
        pieces = parted(payload[1:], len(coders), name=self.name)
        return self._together.join(
            [coder.decode(piece) for coder, piece in zip(coders, pieces, strict=True)]
        )


def name_of(tenths: int) -> str:
    """The codec's name; tenths of a bit are those of `rans-N`, whose grids it takes."""
    return f"pco-{tenths}"


def tenths_of(name: str) -> int | None:
    """What `name_of` was given; None if it is no such name."""
    return next((t for t in range(MIN_TENTHS, MAX_TENTHS + 1) if name == name_of(t)), None)

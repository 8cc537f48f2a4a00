"""The transform of `klt-N`, its coefficients coded in a fraction of the time.

They go through pcodec (chunks.py) instead of rANS with tables that were learned: in sets of like
mean size.

    quality  a byte
    wide     two bytes, the low one first: a bit for each set whose symbols are int16, not int8
    chunks   of each set
"""

import struct
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..errors import FrameError
from . import klt
from .chunks import Numbers, packed, unpack
from .transform import Transform

WIRE_ID = 0xA1
_FAMILY = "kltp"
_SETS = 12
"""Equal ranges of the tables that `klt-N` would take; those without symbols do not count."""

_WIDE = struct.Struct("<H")

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


class KltPco(klt.Klt):
    """A quality of a transform; it decodes frames of every quality."""

    wire_id = WIRE_ID
    family = _FAMILY

    def __init__(self, transform: Transform, *, quality: int) -> None:
        super().__init__(transform, quality=quality)
        self._sets = lru_cache(maxsize=8)(self._sets_of)

    def _coded(self, coefficients: npt.NDArray[np.float64], quality: int) -> bytes:
        order, sets = self._sets(quality)
        most = np.iinfo(np.int16).max
        symbols = np.clip(np.rint(coefficients), -most, most).astype(np.int16)[order]
        arrays = [_narrowed(symbols[own]) for own in sets]
        wide = sum(1 << at for at, own in enumerate(arrays) if own.dtype == np.int16)
        return _WIDE.pack(wide) + packed(arrays)

    def _symbols(self, payload: bytes, quality: int) -> I32:
        order, sets = self._sets(quality)
        if len(payload) < _WIDE.size:
            raise FrameError("payload is cut off before its symbols")
        (wide,) = _WIDE.unpack_from(payload)
        if wide >> len(sets):
            raise FrameError(f"payload is of more than {len(sets)} sets")
        arrays: list[Numbers] = [
            np.empty(own.stop - own.start, np.int16 if wide >> at & 1 else np.int8)
            for at, own in enumerate(sets)
        ]
        unpack(payload[_WIDE.size :], arrays)
        symbols = np.empty(order.size, np.int32)
        symbols[order] = np.concatenate(arrays)
        return symbols

    def _sets_of(self, quality: int) -> tuple[I64, list[slice]]:
        """The order in which symbols are sent, and where in it each set lies."""
        table = self._rate(quality).table.astype(np.int64)
        order = np.argsort(table, kind="stable")
        low, high = int(table.min()), int(table.max())
        sets = (table[order] - low) * _SETS // (high - low + 1)
        ends = np.searchsorted(sets, np.arange(_SETS + 1))
        return order, [slice(start, end) for start, end in pairwise(ends) if start < end]


def _narrowed(symbols: npt.NDArray[np.int16]) -> Numbers:
    """As int8, if they all are."""
    narrow = symbols.astype(np.int8)
    return narrow if (narrow == symbols).all() else symbols


def name_of(quality: int) -> str:
    """The codec's name; see `Transform` on qualities."""
    return klt.name_of(quality, family=_FAMILY)


def quality_of(name: str) -> int | None:
    """What `name_of` was given; None if it is no such name."""
    return klt.quality_of(name, family=_FAMILY)


def is_transformed(name: str) -> bool:
    """Whether a codec of this name needs the transform of a contract."""
    return any(of(name) is not None for of in (quality_of, klt.quality_of))

"""As few bytes as the answer needs, once more: a transform first, then rANS.

The coefficients of a `Transform` hardly depend on each other, so that nothing but their own mean
size says how likely their symbols are: no contexts, one pass.

    quality  a byte
    states   2 N bytes, N = lanes_of(coefficients sent, steps=_STEPS)
    stream   what the coder reads
    aside    the symbols' low bits, one plane after the other, padded to bytes; then a byte for each
             symbol at the end of its table. The first N of these bytes are the coder's seeds
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..errors import FrameError, TensorError
from ..tensor import Array
from .base import Codec
from .rans import Decoder, Encoder, Tables, lanes_of
from .transform import MAX_QUALITY, MIN_QUALITY, Transform

WIRE_ID = 0xA0
TABLE = "klt"
"""Under which name a contract holds the transform that all qualities share."""

_FAMILY = "klt"
_STEPS = 240
_MOST_EXCESS = 255

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class _Rate:
    """What a quality sends: flat positions, and each one's table, top and shift."""

    sent: npt.NDArray[np.int64]
    table: I32
    top: I32
    shift: I32

    @property
    def lanes(self) -> int:
        return lanes_of(self.sent.size, steps=_STEPS)

    @property
    def low_bits(self) -> int:
        return int(self.shift.sum())


class Klt(Codec):
    """A quality of a transform; it decodes frames of every quality."""

    wire_id = WIRE_ID
    family = _FAMILY

    def __init__(self, transform: Transform, *, quality: int) -> None:
        if not MIN_QUALITY <= quality <= MAX_QUALITY:
            raise ValueError(f"quality is {MIN_QUALITY} to {MAX_QUALITY}, not {quality}")
        self.name = name_of(quality, family=self.family)
        self._quality = quality
        self._transform = transform
        self._tables = Tables(transform.frequencies)
        self._rate = lru_cache(maxsize=8)(self._rate_of)

    def encode(self, tensor: Array) -> bytes:
        if tensor.dtype != np.int8 or tensor.shape != self._transform.shape:
            raise TensorError(
                f"{self.name} takes int8 {list(self._transform.shape)}, "
                f"not {tensor.dtype} {list(tensor.shape)}"
            )
        rate = self._rate(self._quality)
        codes = np.ascontiguousarray(tensor, np.int8)
        coefficients = self._transform.coefficients(codes, self._quality)
        if not rate.sent.size:
            return bytes([self._quality])
        coded = self._coded(coefficients.ravel()[rate.sent], self._quality)
        return bytes([self._quality]) + coded

    def decode(self, payload: bytes, *, shape: tuple[int, ...], dtype: str) -> Array:
        if dtype != "INT8" or shape != self._transform.shape:
            raise FrameError(
                f"{self.name} makes INT8 {list(self._transform.shape)}, the contract says "
                f"{dtype} {list(shape)}"
            )
        quality = payload[0] if payload else 0
        if not MIN_QUALITY <= quality <= MAX_QUALITY:
            raise FrameError(f"payload of quality {quality}")
        rate = self._rate(quality)
        symbols = np.zeros(self._transform.level.size, np.int32)
        if rate.sent.size:
            symbols[rate.sent] = self._symbols(payload[1:], quality)
        elif len(payload) > 1:
            raise FrameError("payload of a tensor of which nothing is sent")
        return self._transform.rebuilt(symbols.reshape(self._transform.level.shape), quality)

    def _rate_of(self, quality: int) -> _Rate:
        table = self._transform.table(quality).ravel()
        sent = np.flatnonzero(table >= 0)
        table = table[sent]
        top, shift = self._transform.top[table], self._transform.shift[table]
        return _Rate(sent, table, top.astype(np.int32), shift.astype(np.int32))

    def _coded(self, coefficients: npt.NDArray[np.float64], quality: int) -> bytes:
        """Those that are sent, one at least."""
        rate = self._rate(quality)
        farthest = (rate.top + _MOST_EXCESS) << rate.shift
        symbols = np.clip(np.rint(coefficients), -farthest, farthest).astype(np.int32)
        high = symbols >> rate.shift
        excess = np.abs(high) - rate.top
        aside = np.concatenate(
            (np.packbits(_low_bits(symbols, rate.shift)), excess[excess >= 0].astype(np.uint8))
        )
        seeds = np.zeros(rate.lanes, np.uint8)
        seeds[: aside.size] = aside[: rate.lanes]
        coder = Encoder(self._tables, lanes=rate.lanes, seeds=seeds)
        coded = np.clip(high, -rate.top, rate.top) + self._transform.reach
        coder.push(coded.astype(np.uint8), rate.table)
        return coder.finish() + aside[rate.lanes :].tobytes()

    def _symbols(self, payload: bytes, quality: int) -> I32:
        """Those that are sent; FrameError unless the payload is exactly them."""
        rate = self._rate(quality)
        coder = Decoder(self._tables, payload, lanes=rate.lanes)
        high = coder.pull(rate.table).astype(np.int32) - self._transform.reach
        seeds, rest = coder.finish()
        edge = np.abs(high) == rate.top
        low_bytes = -(-rate.low_bits // 8)
        count = low_bytes + int(np.count_nonzero(edge))
        if rest.size != max(0, count - seeds.size) or seeds[count:].any():
            raise FrameError(f"payload holds other than {count} bytes beside its symbols")
        aside = np.concatenate((seeds, rest))[:count]
        high[edge] += np.sign(high[edge]) * aside[low_bytes:]
        bits = np.unpackbits(aside[:low_bytes])
        if bits[rate.low_bits :].any():
            raise FrameError("payload holds more low bits than its symbols have")
        return _with_low_bits(high, rate.shift, bits)


def _low_bits(symbols: I32, shift: I32) -> U8:
    """Plane after plane, the lowest first: a bit of each symbol whose shift is above it."""
    planes = [(symbols[shift > bit] >> bit) & 1 for bit in range(int(shift.max()))]
    return np.concatenate([np.zeros(0, np.uint8), *planes]).astype(np.uint8)


def _with_low_bits(high: I32, shift: I32, bits: U8) -> I32:
    made = high << shift
    at = 0
    for bit in range(int(shift.max())):
        those = np.flatnonzero(shift > bit)
        made[those] |= bits[at : at + those.size].astype(np.int32) << bit
        at += those.size
    return made


def name_of(quality: int, *, family: str = _FAMILY) -> str:
    """The codec's name; see `Transform` on qualities."""
    return f"{family}-{quality}"


def quality_of(name: str, *, family: str = _FAMILY) -> int | None:
    """What `name_of` was given; None if it is no such name."""
    qualities = range(MIN_QUALITY, MAX_QUALITY + 1)
    return next((each for each in qualities if name == name_of(each, family=family)), None)

"""Fewer bits per element, then zstd.

An int8 tensor is requantized to 2..8 bits on a uniform grid between two calibrated values of its
own int8 scale, laid out channel by channel (neighbours in a plane resemble each other more than
neighbours across channels), one symbol a byte, and handed to zstd, whose Huffman stage does the
packing. Decoding returns int8 values again, so one tail serves every number of bits. Of several
tensors in one each has its own grid and planes; zstd gets them one after the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import zstandard

from ..errors import FrameError, TensorError
from ..tensor import Array
from .base import Codec

MIN_BITS, MAX_BITS = 2, 8
_ZSTD_LEVEL = 3  # level 19 saves under 2 % on these tensors at 20 times the time


class _Grid:
    """Symbols of `bits` bits for int8 values clipped to [low, high], and back."""

    def __init__(self, *, bits: int, low: float, high: float) -> None:
        if not MIN_BITS <= bits <= MAX_BITS:
            raise ValueError(f"bits must be {MIN_BITS} to {MAX_BITS}, not {bits}")
        if not -128 <= low < high <= 127:
            raise ValueError(f"need -128 <= low < high <= 127, not {low:g}, {high:g}")
        levels = 2**bits - 1
        step = (high - low) / levels
        codes = np.arange(-128, 128, dtype=np.float64)
        symbols = np.clip(np.rint((codes - low) / step), 0, levels).astype(np.uint8)
        # Indexed by the code's own byte: 0..127, then -128..-1.
        self._to_symbol = np.roll(symbols, -128)
        values = np.clip(np.rint(low + step * np.arange(levels + 1)), -128, 127)
        self._to_code = np.zeros(256, np.int8)
        self._to_code[: levels + 1] = values.astype(np.int8)

    def planes(self, tensor: Array) -> npt.NDArray[np.uint8]:
        """The symbols, channels first."""
        symbols = self._to_symbol[np.ascontiguousarray(tensor).view(np.uint8)]
        return np.ascontiguousarray(np.moveaxis(symbols, -1, 0))

    def tensor(self, symbols: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> Array:
        """The int8 values of flat symbols that `planes` made of a tensor of this shape."""
        planes = self._to_code[symbols].reshape(shape[-1], *shape[:-1])
        return np.ascontiguousarray(np.moveaxis(planes, 0, -1))


class Affine(Codec):
    """Requantization of int8 to `bits` bits in [low, high] (units: int8 codes), then zstd.

    >>> tensor = np.arange(-4, 4, dtype=np.int8).reshape(2, 2, 2)
    >>> codec = Affine(bits=4, low=-4, high=11)
    >>> codec.decode(codec.encode(tensor), shape=(2, 2, 2), dtype="INT8").tolist()
    [[[-4, -3], [-2, -1]], [[0, 1], [2, 3]]]
    """

    WIRE_ID_BASE: ClassVar[int] = 0x10

    def __init__(self, *, bits: int, low: float, high: float) -> None:
        self._grid = _Grid(bits=bits, low=low, high=high)
        self.name = name_of(bits)
        self.wire_id = self.WIRE_ID_BASE + bits
        self._levels = 2**bits - 1

    def encode(self, tensor: Array) -> bytes:
        if tensor.dtype != np.int8 or tensor.ndim < 1:
            raise TensorError(f"{self.name} takes int8 tensors, not {tensor.dtype}")
        return zstandard.compress(self._grid.planes(tensor).data, _ZSTD_LEVEL)

    def decode(self, payload: bytes, *, shape: tuple[int, ...], dtype: str) -> Array:
        symbols = self._symbols(payload, shape=shape, dtype=dtype)
        return self._grid.tensor(symbols, shape)

    def _symbols(
        self, payload: bytes, *, shape: tuple[int, ...], dtype: str
    ) -> npt.NDArray[np.uint8]:
        """The symbols of a payload, as many as the shape says and none above the highest."""
        if dtype != "INT8":
            raise FrameError(f"{self.name} makes INT8 tensors, the contract says {dtype}")
        size = math.prod(shape)
        try:
            # The claim is read before anything is allocated for it.
            claimed = zstandard.frame_content_size(payload)
            if claimed != size:
                raise FrameError(f"{self.name} payload claims {claimed} elements, not {size}")
            plane_bytes = zstandard.ZstdDecompressor().decompress(
                payload, max_output_size=size, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise FrameError(f"{self.name} payload: {error}") from error
        symbols = np.frombuffer(plane_bytes, np.uint8)
        if symbols.size != size:
            raise FrameError(f"{self.name} payload holds {symbols.size} elements, not {size}")
        if symbols.size and int(symbols.max()) > self._levels:
            raise FrameError(f"{self.name} payload holds symbols above {self._levels}")
        return symbols


@dataclass(frozen=True)
class Range:
    """Where one of several tensors lies and is clipped: its shape, and [low, high] as above."""

    shape: tuple[int, ...]
    low: float
    high: float

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class AffineParts(Affine):
    """`Affine` of several tensors in one flat one, each in its own range and its own planes.

    >>> codec = AffineParts(bits=4, ranges=[Range((2,), 0, 15), Range((1, 2), -120, -90)])
    >>> codec.decode(codec.encode(np.array([3, 4, -100, -98], np.int8)), shape=(4,), dtype="INT8")
    array([   3,    4, -100,  -98], dtype=int8)
    """

    def __init__(self, *, bits: int, ranges: Sequence[Range]) -> None:
        super().__init__(bits=bits, low=-128, high=127)
        self._parts = [(r, _Grid(bits=bits, low=r.low, high=r.high)) for r in ranges]
        self._elements = sum(r.elements for r in ranges)

    def encode(self, tensor: Array) -> bytes:
        if tensor.dtype != np.int8 or tensor.shape != (self._elements,):
            raise TensorError(
                f"{self.name} takes int8 [{self._elements}], not {tensor.dtype} {tensor.shape}"
            )
        planes, start = [], 0
        for part, grid in self._parts:
            planes.append(
                grid.planes(tensor[start : start + part.elements].reshape(part.shape)).ravel()
            )
            start += part.elements
        return zstandard.compress(np.concatenate(planes).data, _ZSTD_LEVEL)

    def decode(self, payload: bytes, *, shape: tuple[int, ...], dtype: str) -> Array:
        if shape != (self._elements,):
            raise FrameError(f"{self.name} makes [{self._elements}], the contract says {shape}")
        symbols = self._symbols(payload, shape=shape, dtype=dtype)
        tensors, start = [], 0
        for part, grid in self._parts:
            own = symbols[start : start + part.elements]
            tensors.append(grid.tensor(own, part.shape).ravel())
            start += part.elements
        return np.concatenate(tensors)


def name_of(bits: int) -> str:
    """The codec's name: bits per value, before zstd."""
    return f"affine{bits}"


def bits_of(name: str) -> int | None:
    """What `name_of` was given; None if it is no such name."""
    return next((b for b in range(MIN_BITS, MAX_BITS + 1) if name == name_of(b)), None)

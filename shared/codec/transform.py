"""A transform of an int8 tensor [h, w, c] whose coefficients all cost the answer alike.

In space it is the discrete cosine transform; the frequencies form bands around the lowest, and each
band has a basis of its own in the channels: the directions of greatest variance in a metric in
which an error's length is what the answer loses by it (cloud/compiler/transform_fit.py). So one
step serves all coefficients, and a quality is nothing but that step: it needs no parameters.

Learned when a bundle is built, and a part of the contract as one string, with all that a coder must
know of the coefficients. All of it is whole numbers; see `rebuilt`.
"""

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt

from .packed import packed_text, unpacked
from .rans import TOTAL

MIN_QUALITY, MAX_QUALITY = 1, 80
"""The expected loss of quality q is 2^(-q/4) nats; a step is 2^(-q/8) units."""

MAX_SIDE = 128
MAX_CHANNELS = 256
MAX_TOP = 31
MAX_SHIFT = 7
_VERSION = 1
_HEAD = struct.Struct("<BBBHHHbh")
_MAX_BYTES = 1 << 24

_OCTAVE = 8
_FRACTION_BITS = 15
_FRACTIONS = (32768, 30048, 27554, 25268, 23170, 21247, 19484, 17867)
"""2^(-i/8) of 2^15."""

_COSINE_BITS = 12
_CODE_BITS = 8
_SCALE_BITS = 12
_FARTHEST = float(1 << 24)

I8 = npt.NDArray[np.int8]
I16 = npt.NDArray[np.int16]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
I32 = npt.NDArray[np.int32]
U32 = npt.NDArray[np.uint32]
F64 = npt.NDArray[np.float64]


def unit_cosines(size: int) -> F64:
    """The orthonormal DCT-II [frequency, position]."""
    frequency, position = np.arange(size)[:, None], np.arange(size)[None]
    made: F64 = np.cos(np.pi * (position + 0.5) * frequency / size) * np.sqrt(2 / size)
    made[0] /= np.sqrt(2)
    return made


def cosines(size: int) -> F64:
    """The same in whole numbers of 2^-12."""
    made: F64 = np.rint(np.ldexp(unit_cosines(size), _COSINE_BITS))
    return made


def band_of(height: int, width: int, edges: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """The band of each frequency, flat; `edges` are squares of distances from the lowest."""
    square = np.arange(height)[:, None] ** 2 + np.arange(width)[None] ** 2
    return np.searchsorted(edges, square.ravel(), side="right")


@dataclass(frozen=True, kw_only=True)
class Transform:
    """How a tensor becomes coefficients, and how likely their symbols are.

    The coefficient k of a frequency adds `basis` [bands, k, c] * `gain` [bands, k] * 2^exponent * s
    units of 1/256 code to the frequency's channels at quality 0, where s is its symbol. In space a
    position is multiplied by its `scale` [h, w] / 2^12, larger where the answer minds less, and
    `mean` [c], of the same unit, is added. `edges` [bands - 1] are as `band_of` takes them.

    `level` [h * w, k] is the logarithm of a coefficient's mean size in eighths of an octave. At
    quality q its table is (level + q - first) // 2, or the last one; below 0 it is not sent. A
    table codes s >> `shift` up to `top` on either side, and the low bits follow as they are.
    `frequencies` [tables, 2 * reach + 1] sum to 256, the symbol 0 in the middle.
    """

    height: int
    width: int
    exponent: int
    first: int
    edges: U32
    scale: U16
    mean: I16
    basis: I8
    gain: U16
    level: U8
    shift: U8
    top: U8
    frequencies: U8

    def __post_init__(self) -> None:
        channels, bands = self.mean.size, self.edges.size + 1
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise ValueError(f"a transform of {self.height} by {self.width}; at most {MAX_SIDE}")
        if not 1 <= channels <= MAX_CHANNELS:
            raise ValueError(f"a transform of {channels} channels; 1 to {MAX_CHANNELS}")
        if abs(self.exponent) > 40:
            raise ValueError(f"a transform of exponent {self.exponent}")
        if (np.diff(self.edges.astype(np.int64)) <= 0).any():
            raise ValueError("the transform's edges ascend")
        if self.scale.shape != (self.height, self.width) or not self.scale.all():
            raise ValueError("the transform's scale is of another shape, or none")
        if self.basis.shape != (bands, channels, channels) or self.gain.shape != (bands, channels):
            raise ValueError("the transform's bases are of other bands or channels")
        if self.level.shape != (self.height * self.width, channels):
            raise ValueError("the transform's levels are of another shape")
        tables = self.top.size
        if not tables or self.shift.shape != (tables,) or self.shift.max() > MAX_SHIFT:
            raise ValueError(f"each table of the transform has a shift up to {MAX_SHIFT}")
        if not 1 <= self.top.min() <= self.reach <= MAX_TOP:
            raise ValueError(f"each table of the transform has a top from 1 to {MAX_TOP}")
        if self.frequencies.shape != (tables, 2 * self.reach + 1):
            raise ValueError("the transform's frequencies are of other tables")
        if (self.frequencies.sum(axis=1, dtype=np.int64) != TOTAL).any():
            raise ValueError(f"the frequencies of a table sum to {TOTAL}")
        size = np.abs(np.arange(-self.reach, self.reach + 1))
        if ((self.frequencies > 0) != (size <= self.top[:, None])).any():
            raise ValueError("a table has the symbols up to its top, and no others")

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.mean.size

    @property
    def reach(self) -> int:
        return int(self.top.max())

    @cached_property
    def bands(self) -> list[npt.NDArray[np.int64]]:
        """The frequencies of each band."""
        band = band_of(self.height, self.width, self.edges)
        return [np.flatnonzero(band == index) for index in range(len(self.basis))]

    def table(self, quality: int) -> I32:
        """The table of each coefficient [h * w, k], below 0 where it is not sent."""
        index = (self.level.astype(np.int32) + (quality - self.first)) >> 1
        made: I32 = np.minimum(index, self.top.size - 1)
        return made

    def coefficients(self, tensor: I8, quality: int) -> F64:
        """Those of int8 [h, w, c], in steps of the quality: float64 [h * w, k], to be rounded."""
        away: F64 = np.ldexp(tensor.astype(np.float64), _CODE_BITS) - self.mean
        away /= np.ldexp(self.scale.astype(np.float64), -_SCALE_BITS)[..., None]
        rows, columns = self._cosines
        away = np.tensordot(rows, away, axes=(1, 0))
        away = np.matmul(columns, away).reshape(-1, self.mean.size)
        made: F64 = np.empty_like(away)
        scale = 2.0 ** (-2 * _COSINE_BITS - self._exponent(quality))
        for band, inverse, gain in zip(
            self.bands, self._inverses, self._gains(quality), strict=True
        ):
            made[band] = away[band] @ inverse * (scale / np.maximum(gain, 1))
        return made

    def rebuilt(self, symbols: I32, quality: int) -> I8:
        """The int8 tensor of symbols [h * w, k] below 2^16.

        The same on every machine: matrices of floats, but of whole numbers whose sums stay below
        2^53, so that no product or sum is ever rounded, in whatever order they are taken.
        """
        coefficients = symbols.astype(np.float64)
        made = np.empty_like(coefficients)
        for band, basis, gain in zip(self.bands, self._bases, self._gains(quality), strict=True):
            made[band] = coefficients[band] * gain @ basis
        made = np.rint(np.ldexp(made, self._exponent(quality)))
        np.clip(made, -_FARTHEST, _FARTHEST, out=made)
        rows, columns = self._cosines
        made = np.matmul(columns.T, made.reshape(self.shape))
        made = np.rint(np.ldexp(made, -_COSINE_BITS))
        made = np.rint(np.ldexp(np.tensordot(rows, made, axes=(0, 0)), -_COSINE_BITS))
        np.clip(made, -_FARTHEST, _FARTHEST, out=made)
        made *= self.scale[..., None]
        made += np.ldexp(self.mean.astype(np.float64), _SCALE_BITS)
        codes = np.rint(np.ldexp(made, -_CODE_BITS - _SCALE_BITS))
        return cast(I8, np.clip(codes, -128, 127).astype(np.int8))

    def _exponent(self, quality: int) -> int:
        return self.exponent - quality // _OCTAVE

    def _gains(self, quality: int) -> F64:
        fraction = _FRACTIONS[quality % _OCTAVE]
        whole = self.gain.astype(np.int64) * fraction >> _FRACTION_BITS
        return whole.astype(np.float64)

    @cached_property
    def _cosines(self) -> tuple[F64, F64]:
        return cosines(self.height), cosines(self.width)

    @cached_property
    def _bases(self) -> F64:
        return self.basis.astype(np.float64)

    @cached_property
    def _inverses(self) -> F64:
        return cast(F64, np.linalg.pinv(self._bases))

    def text(self) -> str:
        """All of it as a contract holds it."""
        head = _HEAD.pack(
            _VERSION, len(self.basis), self.top.size,
            self.height, self.width, self.mean.size, self.exponent, self.first,
        )  # fmt: skip
        arrays = (
            self.edges.astype("<u4"),
            self.scale.astype("<u2"),
            self.mean.astype("<i2"),
            self.basis.astype("i1"),
            self.gain.astype("<u2"),
            self.level.astype("u1"),
            self.shift.astype("u1"),
            self.top.astype("u1"),
            self.frequencies.astype("u1"),
        )
        raw = b"".join((head, *(each.tobytes() for each in arrays)))
        return packed_text(raw)

    @classmethod
    def parse(cls, text: str) -> "Transform":
        """What `text` wrote; ValueError if that is not it."""
        raw = unpacked(text, most_bytes=_MAX_BYTES, what="transform")
        try:
            version, bands, tables, height, width, channels, exponent, first = _HEAD.unpack_from(
                raw
            )
        except struct.error as error:
            raise ValueError(f"a contract's transform: {error}") from None
        if version != _VERSION or not bands or not tables:
            raise ValueError(f"a transform of version {version}, {bands} bands, {tables} tables")
        at = _HEAD.size

        def take(dtype: str, *shape: int) -> npt.NDArray[np.generic]:
            nonlocal at
            count = int(np.prod(shape, dtype=np.int64))
            if at + count * np.dtype(dtype).itemsize > len(raw):
                raise ValueError("a contract's transform is cut off")
            found = np.frombuffer(raw, dtype, count, at).reshape(shape)
            at += found.nbytes
            return found

        edges, scale = take("<u4", bands - 1), take("<u2", height, width)
        mean = take("<i2", channels)
        basis, gain = take("i1", bands, channels, channels), take("<u2", bands, channels)
        level, shift = take("u1", height * width, channels), take("u1", tables)
        top = take("u1", tables).astype(np.uint8)
        made = cls(
            height=height,
            width=width,
            exponent=exponent,
            first=first,
            edges=edges.astype(np.uint32),
            scale=scale.astype(np.uint16),
            mean=mean.astype(np.int16),
            basis=basis.astype(np.int8),
            gain=gain.astype(np.uint16),
            level=level.astype(np.uint8),
            shift=shift.astype(np.uint8),
            top=top,
            frequencies=take("u1", tables, 2 * int(top.max()) + 1).astype(np.uint8),
        )
        if at != len(raw):
            raise ValueError("a contract's transform is followed by something")
        return made

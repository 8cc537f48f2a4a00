"""From a model's pixels to what it takes: normalized values, or codes on a grid of its own."""

import numpy as np
import numpy.typing as npt

from ..shared.preprocess import PreprocessSpec
from ..shared.tensor import Array

Pixels = npt.NDArray[np.uint8]

_HALF = 128
_LEVELS = 256


class PixelInput:
    """Pixels, uint8 [s, s, 3], as one model takes them, [1, s, s, 3].

    A float32 model takes (pixels - mean) / std. A quantized one takes the nearest codes on its
    grid, real = scale * (code - zero_point); where those are the pixels themselves, or 128 less in
    int8, nothing is computed: at 224 px the float values take as long as 2 % of an
    EfficientNet-Lite0.
    """

    def __init__(
        self, spec: PreprocessSpec, dtype: npt.DTypeLike, *, scale: float = 0.0, zero_point: int = 0
    ) -> None:
        self._dtype = np.dtype(dtype)
        self._mean = np.tile(np.array(spec.mean, np.float32), spec.size_px)
        self._std = np.tile(np.array(spec.std, np.float32), spec.size_px)
        self._codes = None
        if self._dtype != np.float32:
            self._codes = codes_of_levels(spec, self._dtype, scale=scale, zero_point=zero_point)
            self._shift = _shift(self._codes)

    def __call__(self, pixels: Pixels) -> Array:
        if self._codes is None:
            rows = pixels.reshape(len(pixels), -1)
            tensor: Array = (rows - self._mean) / self._std
            return tensor.reshape(1, *pixels.shape)
        if self._shift is not None:
            return (pixels ^ self._shift).view(self._dtype)[None]
        made = np.empty((1, *pixels.shape), self._dtype)
        for channel, codes in enumerate(self._codes):
            np.take(codes, pixels[..., channel], out=made[0, ..., channel], mode="clip")
        return made


def codes_of_levels(
    spec: PreprocessSpec, dtype: npt.DTypeLike, *, scale: float, zero_point: int
) -> Array:
    """The code of each of the 256 levels of a pixel on a grid, by channel: [3, 256]."""
    levels = np.arange(_LEVELS, dtype=np.float32)
    mean, std = (np.array(each, np.float32)[:, None] for each in (spec.mean, spec.std))
    limits = np.iinfo(np.dtype(dtype))
    codes = np.rint((levels - mean) / std / np.float32(scale)) + zero_point
    made: Array = np.clip(codes, limits.min, limits.max).astype(dtype)
    return made


def value_range(spec: PreprocessSpec) -> tuple[float, float]:
    """The least and the largest value that pixels can become."""
    mean, std = (np.array(each, np.float32) for each in (spec.mean, spec.std))
    return float((-mean / std).min()), float(((_LEVELS - 1 - mean) / std).max())


def takes_pixels(spec: PreprocessSpec, *, scale: float, zero_point: int) -> bool:
    """Whether the int8 codes on this grid are the pixels less 128."""
    return _shift(codes_of_levels(spec, np.int8, scale=scale, zero_point=zero_point)) is not None


def _shift(codes: Array) -> np.uint8 | None:
    """The bits to turn over that make codes of pixels, or None if it takes more than that."""
    shift = _HALF if codes.dtype == np.int8 else 0
    turned = (np.arange(_LEVELS, dtype=np.uint8) ^ np.uint8(shift)).view(codes.dtype)
    return np.uint8(shift) if (codes == turned).all() else None

"""What is done to a picture before a model sees it, as values both sides agree on.

Cropping follows EfficientNet (`preprocessing.py` of tensorflow/tpu): the centre square of side
floor(size / (size + crop_padding) * min(w, h)). Resizing follows `tf.image.resize`: half-pixel
centres, weights renormalised at the borders.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

MAX_SIZE_PX = 4096

Triple = tuple[float, float, float]


class Interpolation(StrEnum):
    """How pixels between pixels come about."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """Crop, resize to `size_px` x `size_px` and normalise: tensor = (pixels - mean) / std.

    `crop_padding_px` of None squashes the whole picture. Without `antialias` only the 2x2
    (bilinear) or 4x4 (bicubic) nearest source pixels count, however much a picture shrinks. `mean`
    and `std` are per RGB channel in units of 0..255.

    >>> PreprocessSpec(size_px=224, crop_padding_px=32).crop(width=500, height=375)
    (86, 24, 328)
    """

    size_px: int
    crop_padding_px: int | None = None
    interpolation: Interpolation = Interpolation.BILINEAR
    antialias: bool = False
    mean: Triple = (127.0, 127.0, 127.0)
    std: Triple = (128.0, 128.0, 128.0)

    def __post_init__(self) -> None:
        if not 1 <= self.size_px <= MAX_SIZE_PX:
            raise ValueError(f"size_px {self.size_px} is not in 1..{MAX_SIZE_PX}")
        if self.crop_padding_px is not None and not 0 <= self.crop_padding_px <= MAX_SIZE_PX:
            raise ValueError(f"crop_padding_px {self.crop_padding_px} is not in 0..{MAX_SIZE_PX}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise ValueError(f"{name} {values} is not three finite numbers")
        if min(self.std) <= 0:
            raise ValueError(f"std {self.std} must be above zero")

    def crop(self, *, width: int, height: int) -> tuple[int, int, int] | None:
        """(left, top, side) of the centre square in pixels; None where nothing is cropped."""
        if self.crop_padding_px is None:
            return None
        # Integers, so that every machine and runtime crops the same pixels.
        side = max(1, self.size_px * min(width, height) // (self.size_px + self.crop_padding_px))
        return (width - side + 1) // 2, (height - side + 1) // 2, side

"""What is done to a picture before a model sees it, as values both sides agree on.

Cropping follows EfficientNet (`preprocessing.py` of tensorflow/tpu): the centre square of side
floor(size / (size + crop_padding) * min(w, h)). Resizing follows `tf.image.resize`: half-pixel
centres, weights renormalised at the borders.
"""

import math
from collections.abc import Mapping
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

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "size_px": self.size_px,
            "crop_padding_px": self.crop_padding_px,
            "interpolation": self.interpolation.value,
            "antialias": self.antialias,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "PreprocessSpec":
        """The spec of `to_dict`; ValueError names what is missing, unknown or of a wrong type."""
        expected = set(cls.__slots__)
        if set(values) != expected:
            odd = ", ".join(sorted(expected.symmetric_difference(values)))
            raise ValueError(f"preprocessing has missing or unknown fields: {odd}")
        crop_padding_px = values["crop_padding_px"]
        antialias = values["antialias"]
        if not isinstance(antialias, bool):
            raise ValueError(f"antialias is {antialias!r}, neither true nor false")
        return cls(
            size_px=_integer("size_px", values["size_px"]),
            crop_padding_px=(
                None if crop_padding_px is None else _integer("crop_padding_px", crop_padding_px)
            ),
            interpolation=Interpolation(str(values["interpolation"])),
            antialias=antialias,
            mean=_triple("mean", values["mean"]),
            std=_triple("std", values["std"]),
        )


def _integer(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} is {value!r}, not a whole number")
    return value


def _triple(name: str, value: object) -> Triple:
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        raise ValueError(f"{name} is {value!r}, not three numbers")
    if any(isinstance(item, bool) or not isinstance(item, (int, float)) for item in value):
        raise ValueError(f"{name} is {value!r}, not three numbers")
    return float(value[0]), float(value[1]), float(value[2])

"""Whole pictures: the honest rivals of every split."""

import io
from enum import StrEnum
from functools import cache

import numpy as np
from PIL import Image, features

from ..errors import FrameError, PictureError, TensorError
from ..picture import decode_picture
from ..tensor import Array
from . import jpeg_xl
from .base import Codec


class PictureFormat(StrEnum):
    """The formats, by the names Pillow knows them under, then that of imagecodecs."""

    JPEG = "jpeg"
    WEBP = "webp"
    PNG = "png"
    AVIF = "avif"
    JXL = "jxl"


_WIRE_IDS = {
    PictureFormat.JPEG: 0x20,
    PictureFormat.WEBP: 0x21,
    PictureFormat.PNG: 0x22,
    PictureFormat.AVIF: 0x23,
    PictureFormat.JXL: 0x24,
}
_LOSSLESS = {PictureFormat.PNG}
_EITHER = {PictureFormat.JXL}
"""Without a quality these lose nothing."""
_OF_PILLOW = {
    PictureFormat.JPEG: "jpg",
    PictureFormat.WEBP: "webp",
    PictureFormat.PNG: "zlib",
    PictureFormat.AVIF: "avif",
}
"""What Pillow calls the libraries that it may have been built without."""
SAID_BY_NONE = frozenset(_OF_PILLOW)
"""What a cloud reads that does not say what it reads: it is of a release before the others."""


@cache
def formats_here() -> frozenset[PictureFormat]:
    """What this machine's packages make and read."""
    found = {each for each, library in _OF_PILLOW.items() if features.check(library)}
    if jpeg_xl.package() is not None:
        found |= {PictureFormat.JXL}
    return frozenset(found)


def format_of(codec: str) -> PictureFormat | None:
    """The format of a picture codec's name; None if it is no picture codec."""
    picture = Picture.parse(codec)
    return picture.format if picture is not None else None


class Picture(Codec):
    """JPEG, WebP, AVIF or JPEG XL of a quality from 1 to 100 of uint8 RGB pixels [h, w, 3].

    PNG and JPEG XL without a quality lose nothing. The quality is the encoder's business alone:
    frames of every quality share one `wire_id`.
    """

    def __init__(self, picture_format: PictureFormat, *, quality: int | None = None) -> None:
        lossless = picture_format in _LOSSLESS
        if lossless != (quality is None) and picture_format not in _EITHER:
            raise ValueError("jpeg, webp and avif take a quality, png takes none")
        if quality is not None and not 1 <= quality <= 100:
            raise ValueError(f"quality must be 1 to 100, not {quality}")
        self.name = picture_format if quality is None else f"{picture_format}-{quality}"
        self.wire_id = _WIRE_IDS[picture_format]
        self.format = picture_format
        self._quality = quality

    @classmethod
    def parse(cls, name: str) -> "Picture | None":
        """The codec of a name such as `jpeg-90` or `png`; None if the name is no picture codec."""
        head, _, quality = name.partition("-")
        try:
            codec = cls(PictureFormat(head), quality=int(quality) if quality else None)
        except ValueError:
            return None
        return codec if codec.name == name else None  # one spelling each: no `jpeg-075`

    @classmethod
    def of_wire_id(cls, wire_id: int) -> "Picture | None":
        """A codec that decodes frames of this id; its quality is the best, and does not matter."""
        for picture_format, known in _WIRE_IDS.items():
            if known == wire_id:
                lossless = picture_format in _LOSSLESS
                return cls(picture_format, quality=None if lossless else 100)
        return None

    def encode(self, tensor: Array) -> bytes:
        if tensor.dtype != np.uint8 or tensor.shape[2:] != (3,) or tensor.size == 0:
            raise TensorError(
                f"{self.name} takes uint8 pixels [h, w, 3], not {tensor.dtype} {tensor.shape}"
            )
        if self.format not in _OF_PILLOW:
            return jpeg_xl.encode(tensor, quality=self._quality)
        buffer, options = io.BytesIO(), {"quality": self._quality} if self._quality else {}
        try:
            Image.fromarray(tensor).save(buffer, self.format, **options)
        except (OSError, ValueError) as error:
            raise TensorError(f"{self.name} cannot hold {tensor.shape}: {error}") from error
        return buffer.getvalue()

    def decode(self, payload: bytes, *, shape: tuple[int, ...], dtype: str) -> Array:
        if dtype != "UINT8" or len(shape) != 3 or shape[-1] != 3:
            raise FrameError(f"{self.format} makes UINT8 [h, w, 3], not {dtype} {list(shape)}")
        if self.format not in _OF_PILLOW:
            return jpeg_xl.decode(payload, shape=shape)
        try:
            pixels = decode_picture(
                payload, max_pixels=shape[0] * shape[1], formats=(self.format.upper(),)
            )
        except PictureError as error:
            raise FrameError(f"{self.format} payload: {error}") from error
        if pixels.shape != shape:
            raise FrameError(f"{self.format} payload is {pixels.shape}, the contract says {shape}")
        return pixels

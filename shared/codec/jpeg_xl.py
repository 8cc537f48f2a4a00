"""JPEG XL by imagecodecs (the extra `pictures`), where it is installed.

Only one plain frame of the contract's size is decoded (jpeg_xl_header.py), and the decoder refuses
what is not exactly the array that it is given, so that no payload makes more than its contract's
tensor.
"""

from functools import cache
from typing import Any

import numpy as np

from ..errors import ConfigError, FrameError, TensorError
from ..tensor import Array
from .jpeg_xl_header import check_one_frame

_EFFORT, _LOSSLESS_EFFORT = 5, 3
"""A picture of 260 px takes 17 ms, and 28 for as many bytes with two more; without loss 10 ms, and
51 for half a per cent fewer bytes with two more."""
_DAMAGE = (IndexError, MemoryError, RuntimeError, ValueError)
"""What the decoder raises on damaged bytes; its own error is a RuntimeError."""


@cache
def package() -> Any:
    """imagecodecs; None where it is not installed, or has no JPEG XL."""
    try:
        import imagecodecs
    except ImportError:
        return None
    return imagecodecs if imagecodecs.JPEGXL.available else None


def encode(pixels: Array, *, quality: int | None) -> bytes:
    """The payload of uint8 RGB pixels [h, w, 3]; without a quality it loses nothing.

    ConfigError without the package, which no plan of a router leads to.
    """
    if package() is None:
        raise ConfigError('jxl: imagecodecs is missing; pip install "hybridge[pictures]"')
    lossless = quality is None
    try:
        made = package().jpegxl_encode(
            pixels,
            level=quality,
            lossless=lossless,
            effort=_LOSSLESS_EFFORT if lossless else _EFFORT,
            numthreads=1,
        )
    except (RuntimeError, ValueError) as error:
        raise TensorError(f"jxl cannot hold {pixels.shape}: {error}") from error
    return bytes(made)


def decode(payload: bytes, *, shape: tuple[int, ...]) -> Array:
    """The uint8 pixels of a payload; FrameError if it does not hold just those, or no package."""
    if package() is None:
        raise FrameError("jxl is not read here: the extra `pictures` is not installed")
    if (found := check_one_frame(payload)) != shape[:2]:
        raise FrameError(f"jxl payload is of {found} pixels, the contract says {list(shape)}")
    pixels = np.empty(shape, np.uint8)
    try:
        package().jpegxl_decode(payload, out=pixels, numthreads=1)
    except _DAMAGE as error:
        raise FrameError(f"jxl payload: {error}") from error
    return pixels

"""JPEG XL and JPEG-LS by imagecodecs (the extra `pictures`), where it is installed.

Both decoders read a picture's size before its pixels and refuse what is not exactly the array that
they are given, so that no payload makes more than its contract's tensor.
"""

from functools import cache
from typing import Any

import numpy as np

from ..errors import ConfigError, FrameError, TensorError
from ..tensor import Array

_CALLED = {"jxl": "jpegxl", "jpegls": "jpegls"}
"""Our names, and those of the package's functions."""
_ONE_THREAD = {"jxl": {"numthreads": 1}, "jpegls": {}}
_EFFORT = 5
"""A picture of 260 px takes 17 ms, and 28 for as many bytes with two more."""
_DAMAGE = (IndexError, MemoryError, RuntimeError, ValueError)
"""What the decoders raise on damaged bytes; their own errors are RuntimeErrors."""


@cache
def package() -> Any:
    """imagecodecs; None where it is not installed, or not whole."""
    try:
        import imagecodecs
    except ImportError:
        return None
    whole = imagecodecs.JPEGXL.available and imagecodecs.JPEGLS.available
    return imagecodecs if whole else None


def encode(name: str, pixels: Array, *, quality: int | None) -> bytes:
    """The payload of uint8 RGB pixels [h, w, 3]; without a quality it loses nothing.

    ConfigError without the package, which no plan of a router leads to.
    """
    if package() is None:
        raise ConfigError(f'{name}: imagecodecs is missing; pip install "hybridge[pictures]"')
    settings: dict[str, object] = {**_ONE_THREAD[name]}
    if name == "jxl":
        settings |= {"effort": _EFFORT, "level": quality, "lossless": quality is None}
    try:
        made = getattr(package(), f"{_CALLED[name]}_encode")(pixels, **settings)
    except (RuntimeError, ValueError) as error:
        raise TensorError(f"{name} cannot hold {pixels.shape}: {error}") from error
    return bytes(made)


def decode(name: str, payload: bytes, *, shape: tuple[int, ...]) -> Array:
    """The uint8 pixels of a payload; FrameError if it does not hold just those, or no package."""
    if package() is None or name == "jpegls":  # CharLS: seconds of computing for a cut payload
        raise FrameError(f"{name} is not read here: the extra `pictures` is not installed")
    pixels = np.empty(shape, np.uint8)
    try:
        getattr(package(), f"{_CALLED[name]}_decode")(payload, out=pixels, **_ONE_THREAD[name])
    except _DAMAGE as error:
        raise FrameError(f"{name} payload: {error}") from error
    return pixels

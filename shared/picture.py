"""Encoded pictures from outside: checked before they are believed, then decoded to RGB."""

import io
import struct
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from .errors import PictureError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_PIXELS = 50_000_000

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to undo each value of EXIF's Orientation (EXIF 2.32, 4.6.4)."""

_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)
"""What Pillow's readers raise on damaged bytes, chiefly on damaged metadata."""

# Pillow's own limit is for callers who set none; ours is an argument and is checked first.
Image.MAX_IMAGE_PIXELS = None


def decode_picture(
    encoded: bytes, *, max_pixels: int = MAX_PIXELS, formats: Sequence[str] = FORMATS
) -> npt.NDArray[np.uint8]:
    """RGB pixels, uint8 [h, w, 3], upright as EXIF says; the first frame of an animation.

    Raises PictureError for bytes that are no picture, a truncated one, a grey one with more than 8
    bits, whose range nobody knows, or one of more than `max_pixels`, which is read from the header
    before any pixel. Of 16-bit colours the upper 8 bits count.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata that does not matter
            with Image.open(io.BytesIO(encoded), formats=tuple(formats)) as image:
                _check_header(image, max_pixels)
                return np.asarray(_upright(image).convert("RGB"), np.uint8)
    except UnidentifiedImageError:
        raise PictureError(f"{_what_it_is(encoded)}; accepted: {', '.join(formats)}") from None
    except _DAMAGE as error:
        raise PictureError(f"damaged or truncated picture ({error})") from error


def picture_size(encoded: bytes) -> tuple[int, int]:
    """Width and height from the header alone; PictureError if it is no picture."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            return image.size
    except UnidentifiedImageError:
        raise PictureError(f"{_what_it_is(encoded)}; accepted: {', '.join(FORMATS)}") from None
    except _DAMAGE as error:
        raise PictureError(f"damaged or truncated picture ({error})") from error


def _check_header(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise PictureError(
            f"{width}x{height} is {width * height / 1e6:.1f} megapixels; "
            f"at most {max_pixels / 1e6:.1f} are accepted"
        )
    if image.mode.startswith(("I", "F")):
        raise PictureError(
            f"pixel mode {image.mode} has more than 8 bits per channel; window it to 8 bits first"
        )


def _upright(image: Image.Image) -> Image.Image:
    """As EXIF says; `ImageOps.exif_transpose` also rewrites the EXIF, and fails where it is odd."""
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def _what_it_is(encoded: bytes) -> str:
    if not encoded:
        return "no bytes at all"
    return f"{len(encoded)} bytes that are no picture (they begin with {encoded[:8]!r})"

"""Picture codecs that are rivals only, where their packages are installed.

JPEG XL (pillow-jxl-plugin) is no codec of ours because its plugin decodes a picture before anyone
can ask how large it is; JPEG-LS (pyjpegls) because it loses nothing and takes about what PNG does.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
from PIL import Image

JXL_QUALITIES = (50, 75, 85, 90, 95, 98)
_FRAME_BYTES = 60
"""What a frame adds to a picture of three dimensions."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Rival:
    """A codec of uint8 pixels [h, w, 3]."""

    name: str
    encode: Callable[[Pixels], bytes]
    decode: Callable[[bytes], Pixels]


def installed() -> Iterator[Rival]:
    """Those whose packages are here, from the smallest quality on."""
    if find_spec("pillow_jxl") is not None:
        import pillow_jxl  # noqa: F401  (registers the format)

        for quality in JXL_QUALITIES:
            yield Rival(f"jxl-{quality}", partial(_to_jxl, quality=quality), _from_jxl)
        yield Rival("jxl", partial(_to_jxl, lossless=True), _from_jxl)
    if find_spec("jpeg_ls") is not None:
        yield Rival("jpegls", _to_jpegls, _from_jpegls)


def _to_jxl(pixels: Pixels, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JXL", **options)
    return buffer.getvalue()


def _from_jxl(content: bytes) -> Pixels:
    with Image.open(io.BytesIO(content), formats=("JXL",)) as image:
        return np.asarray(image.convert("RGB"), np.uint8)


def _to_jpegls(pixels: Pixels) -> bytes:
    import jpeg_ls

    return bytes(jpeg_ls.encode_array(pixels, interleave_mode=2))


def _from_jpegls(content: bytes) -> Pixels:
    import jpeg_ls

    return np.asarray(jpeg_ls.decode(np.frombuffer(content, np.uint8)), np.uint8)


def rival_bytes(content: bytes) -> int:
    """What crosses the link for a picture that a rival made: as much, and a frame around it."""
    return len(content) + _FRAME_BYTES

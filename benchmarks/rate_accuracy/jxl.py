"""JPEG XL, a rival only: its plugin decodes a picture before anyone can ask how large it is."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image
from rate_accuracy.curves import PICTURE, Point
from rate_accuracy.timing import best_ms

from hybridge.shared.tensor import Array

QUALITIES = (50, 75, 85, 90, 95, 98)
FRAME_BYTES = 60
"""What a frame adds to a picture of three dimensions."""

Pixels = npt.NDArray[np.uint8]


def available() -> bool:
    """Whether pillow-jxl-plugin is installed; importing it registers the format."""
    try:
        import pillow_jxl  # noqa: F401
    except ImportError:
        return False
    return True


def encoded(pixels: Pixels, quality: int | None) -> bytes:
    buffer = io.BytesIO()
    options = {"lossless": True} if quality is None else {"quality": quality}
    Image.fromarray(pixels).save(buffer, "JXL", **options)
    return buffer.getvalue()


def decoded(content: bytes) -> Pixels:
    with Image.open(io.BytesIO(content), formats=("JXL",)) as image:
        return np.asarray(image.convert("RGB"), np.uint8)


def points(
    pictures: Sequence[Pixels], answer: Callable[[Array], int], on_rate: Callable[[], None]
) -> list[tuple[str, Point]]:
    """A point per quality, and the lossless one."""
    wanted = [answer(pixels) for pixels in pictures]
    made = []
    for quality in (*QUALITIES, None):
        contents = [encoded(pixels, quality) for pixels in pictures]
        given = [answer(decoded(content)) for content in contents]
        sizes = [len(content) + FRAME_BYTES for content in contents]
        made.append(
            (
                PICTURE,
                Point(
                    codec="jxl" if quality is None else f"jxl-{quality}",
                    bytes_p50=int(np.median(sizes)),
                    agreed=sum(a == b for a, b in zip(given, wanted, strict=True)),
                    pictures=len(pictures),
                    encode_ms=best_ms(lambda: encoded(pictures[0], quality)),  # noqa: B023
                    decode_ms=best_ms(lambda: decoded(contents[0])),  # noqa: B023
                ),
            )
        )
        on_rate()
    return made

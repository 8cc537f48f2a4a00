"""JPEG-LS, a lossless rival that is no codec of ours: its decoder may never end on damaged bytes.

Here it reads what it has written itself. Nothing is lost, so that every answer agrees.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from rate_accuracy.curves import PICTURE, Point
from rate_accuracy.timing import best_ms

from hybridge.shared.codec.jpeg_xl import package
from hybridge.shared.tensor import Array

NAME = "jpegls"


def points(pictures: Sequence[Array], *, header_bytes: int) -> Iterator[tuple[str, Point]]:
    """The one point of its curve, in frames like the others'; none without imagecodecs."""
    codecs = package()
    if codecs is None or not codecs.JPEGLS.available:
        return
    payloads = [bytes(codecs.jpegls_encode(pixels)) for pixels in pictures]
    for pixels, payload in zip(pictures, payloads, strict=True):
        if not np.array_equal(codecs.jpegls_decode(payload), pixels):
            raise AssertionError("JPEG-LS gave other pixels than it was given")
    yield (
        PICTURE,
        Point(
            codec=NAME,
            bytes_p50=int(np.median([header_bytes + len(payload) for payload in payloads])),
            agreed=len(pictures),
            pictures=len(pictures),
            encode_ms=best_ms(lambda: codecs.jpegls_encode(pictures[0])),
            decode_ms=best_ms(lambda: codecs.jpegls_decode(payloads[0])),
        ),
    )

"""What a contract holds of a codec, as one string: bytes, deflated and in base64."""

import base64
import binascii
import zlib


def packed_text(raw: bytes) -> str:
    """The string.

    >>> unpacked(packed_text(b"grids"), most_bytes=100, what="grids")
    b'grids'
    """
    return base64.b64encode(zlib.compress(raw, 9)).decode()


def unpacked(text: str, *, most_bytes: int, what: str) -> bytes:
    """The bytes; ValueError if there are none, more than `most_bytes`, or something behind them."""
    inflating = zlib.decompressobj()
    try:
        raw = inflating.decompress(base64.b64decode(text, validate=True), most_bytes)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"the {what} of a contract: {error}") from None
    if not inflating.eof or inflating.unused_data:
        raise ValueError(f"the {what} of a contract: cut off, too long or followed by more")
    return raw

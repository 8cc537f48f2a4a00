import numpy as np
import pytest

from hybridge.shared.codec import codec_by_name
from hybridge.shared.frame import decode_payload, encode_frame, read_header

from .released import Released, all_released

LOSSY_PICTURES = ("avif", "jpeg-", "jxl-", "webp")
NAMES = {
    "raw",
    "png",
    "jxl",
    "rans-25",
    "rans-25-parts",
    "affine4-parts",
    "klt-30",
    "kltp-30",
    "pco-25",
    "pco-25-parts",
}


def is_lossy_picture(released: Released) -> bool:
    """Whose decoders may round differently from release to release, by a step of 255 or two."""
    return released.name.startswith(LOSSY_PICTURES)


@pytest.mark.parametrize("released", all_released(), ids=lambda each: each.name)
def test_a_frame_that_was_ever_released_decodes(released: Released) -> None:
    header = read_header(released.frame)
    decoded = decode_payload(released.frame, header, contract=released.contract)
    off = np.abs(decoded.astype(np.int64) - released.tensor.astype(np.int64)).max()
    assert off <= (2 if is_lossy_picture(released) else 0)


@pytest.mark.parametrize("name", ["rans-25", "rans-25-parts", "raw", "raw-int8"])
def test_encoders_of_our_own_still_write_the_same(name: str) -> None:
    (released,) = [each for each in all_released() if each.name == name]
    codec = codec_by_name(name.partition("-p")[0].removesuffix("-int8"), released.contract)
    again = encode_frame(released.tensor, contract=released.contract, codec=codec)
    assert again == released.frame


def test_no_fixture_was_lost() -> None:
    names = {released.name for released in all_released()}
    assert names >= NAMES | {f"affine{bits}" for bits in range(2, 9)}
    assert {name for name in names if name.startswith(LOSSY_PICTURES)}

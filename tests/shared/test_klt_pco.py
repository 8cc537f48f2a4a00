import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.cloud.compiler.transform_fit import fit_transform
from hybridge.shared.codec import codec_by_name, codec_by_wire_id
from hybridge.shared.codec.klt import Klt
from hybridge.shared.codec.klt_pco import (
    WIRE_ID,
    KltPco,
    is_transformed,
    name_of,
    quality_of,
)
from hybridge.shared.contract import Contract
from hybridge.shared.errors import FrameError

from .codecs import check_refuses, check_refuses_damage, check_takes_only, round_trip
from .grids import smooth_tensors

SHAPE = (9, 7, 12)
TENSORS = smooth_tensors(40, SHAPE)
OWN = fit_transform(TENSORS[:32], None)
CONTRACT = Contract(
    tensor="cut",
    shape=SHAPE,
    dtype="INT8",
    model="ab",
    scale=0.1,
    zero_point=0,
    codecs={"klt": {"transform": OWN.text()}},
)
TENSOR = TENSORS[35]


@pytest.mark.parametrize("quality", [1, 8, 20, 30, 50, 80])
def test_it_gives_what_klt_gives(quality: int) -> None:
    """From nothing sent at all to symbols that are no int8."""
    slow, quick = Klt(OWN, quality=quality), KltPco(OWN, quality=quality)
    for tensor in TENSORS[32:]:
        expected = slow.decode(slow.encode(tensor), shape=SHAPE, dtype="INT8")
        np.testing.assert_array_equal(round_trip(quick, tensor), expected)


def test_the_finest_symbols_are_wide_and_the_coarse_are_not() -> None:
    wide = {quality: KltPco(OWN, quality=quality).encode(TENSOR)[1:3] for quality in (30, 80)}
    assert wide[30] == b"\0\0"
    assert wide[80] != b"\0\0"


def test_every_quality_decodes_frames_of_all() -> None:
    other = KltPco(OWN, quality=20).encode(TENSOR)
    own = KltPco(OWN, quality=40)
    decoded = own.decode(other, shape=SHAPE, dtype="INT8")
    np.testing.assert_array_equal(decoded, round_trip(KltPco(OWN, quality=20), TENSOR))


def test_a_contract_has_its_codec_by_name_and_by_wire_id() -> None:
    codec = codec_by_name("kltp-30", CONTRACT)
    assert isinstance(codec, KltPco)
    assert codec.name == "kltp-30"
    decoded = codec_by_wire_id(WIRE_ID, CONTRACT).decode(
        codec.encode(TENSOR), shape=SHAPE, dtype="INT8"
    )
    np.testing.assert_array_equal(decoded, round_trip(codec, TENSOR))
    bare = Contract(tensor="cut", shape=SHAPE, dtype="INT8", model="ab")
    with pytest.raises(ValueError, match="no codec 'kltp-30'"):
        codec_by_name("kltp-30", bare)
    with pytest.raises(FrameError, match="not part of contract"):
        codec_by_wire_id(WIRE_ID, bare)


def test_damage_is_refused() -> None:
    codec = KltPco(OWN, quality=30)
    check_takes_only(codec, TENSOR.astype(np.float32), TENSOR[:-1])
    check_refuses_damage(codec, TENSOR)
    payload = codec.encode(TENSOR)
    no_such_set = payload[:2] + bytes([payload[2] | 0x80]) + payload[3:]
    all_wide = payload[:1] + b"\xff\x0f" + payload[3:]
    for wrong in (payload + b"x", b"\0" + payload[1:], all_wide, no_such_set):
        check_refuses(codec, wrong, shape=SHAPE, dtype="INT8")
    nothing = KltPco(OWN, quality=1)
    check_refuses(nothing, nothing.encode(TENSOR) + b"x", shape=SHAPE, dtype="INT8")


@given(st.data())
def test_any_payload_is_refused_or_a_tensor(data: st.DataObject) -> None:
    codec = KltPco(OWN, quality=30)
    payload = bytearray(codec.encode(TENSOR))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at : at + 1] = data.draw(st.binary(min_size=1, max_size=3))
    try:
        decoded = codec.decode(bytes(payload), shape=SHAPE, dtype="INT8")
    except FrameError:
        return
    assert (decoded.shape, decoded.dtype) == (SHAPE, np.int8)


@pytest.mark.parametrize("name", ["kltp-0", "kltp-020", "kltp-81", "kltp-", "klt-30", "pco-30"])
def test_names_have_one_spelling(name: str) -> None:
    assert quality_of(name) is None
    assert quality_of(name_of(30)) == 30
    assert is_transformed(name) == (name == "klt-30")

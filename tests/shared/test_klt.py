import base64
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridge.cloud.compiler.transform_fit import fit_transform
from hybridge.shared.codec import codec_by_name, codec_by_wire_id
from hybridge.shared.codec.klt import Klt, name_of, quality_of
from hybridge.shared.codec.rans import frequencies_of
from hybridge.shared.codec.transform import Transform, cosines, unit_cosines
from hybridge.shared.contract import Contract
from hybridge.shared.errors import FrameError

from .codecs import check_refuses, check_refuses_damage, check_takes_only, round_trip
from .grids import smooth_tensors

SHAPE = (9, 7, 12)
TENSORS = smooth_tensors(40, SHAPE)
OWN = fit_transform(TENSORS[:32], None)
TENSOR = TENSORS[35]


def contract(transform: Transform = OWN) -> Contract:
    return Contract(
        tensor="cut",
        shape=transform.shape,
        dtype="INT8",
        model="ab",
        scale=0.1,
        zero_point=0,
        codecs={"klt": {"transform": transform.text()}},
    )


@st.composite
def transforms(draw: st.DrawFn) -> Transform:
    """Every field anywhere within its bounds."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    height, width, channels = (draw(st.integers(1, most)) for most in (7, 7, 5))
    bands, tables = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    top = random.integers(1, draw(st.integers(2, 32)), tables)
    reach = int(top.max())
    frequencies = np.zeros((tables, 2 * reach + 1), np.uint8)
    for row, own in zip(frequencies, top, strict=True):
        chances = random.dirichlet(np.full(2 * own + 1, 0.3), size=1)
        row[reach - own : reach + own + 1] = frequencies_of(chances)[0]
    return Transform(
        height=height,
        width=width,
        exponent=draw(st.integers(-40, 40)),
        first=draw(st.integers(-300, 300)),
        edges=np.sort(random.choice(np.arange(1, 60), bands - 1, replace=False)).astype(np.uint32),
        scale=random.integers(1, 2**16, (height, width)).astype(np.uint16),
        mean=random.integers(-(2**15), 2**15, channels).astype(np.int16),
        basis=random.integers(-128, 128, (bands, channels, channels)).astype(np.int8),
        gain=random.integers(0, 2**16, (bands, channels)).astype(np.uint16),
        level=random.integers(0, 256, (height * width, channels)).astype(np.uint8),
        shift=random.integers(0, 8, tables).astype(np.uint8),
        top=top.astype(np.uint8),
        frequencies=frequencies,
    )


@given(transforms(), st.integers(1, 80), st.integers(0, 2**32))
def test_what_an_encoder_writes_is_what_the_decoder_rebuilds(
    transform: Transform, quality: int, seed: int
) -> None:
    tensor = np.random.default_rng(seed).integers(-128, 128, transform.shape).astype(np.int8)
    decoded = round_trip(Klt(transform, quality=quality), tensor)
    table = transform.table(quality)
    farthest = (transform.top.astype(np.int64) + 255) << transform.shift
    bound = np.where(table < 0, 0, farthest[np.maximum(table, 0)])
    symbols = np.clip(np.rint(transform.coefficients(tensor, quality)), -bound, bound)
    expected = transform.rebuilt(symbols.astype(np.int32), quality)
    np.testing.assert_array_equal(decoded, expected)


@given(transforms(), st.integers(1, 80), st.integers(0, 2**32))
def test_a_tensor_is_rebuilt_by_whole_numbers(
    transform: Transform, quality: int, seed: int
) -> None:
    """Sums of Python's own integers say the same as matrices of floats."""
    random = np.random.default_rng(seed)
    symbols = random.integers(-(2**15), 2**15, transform.level.shape).astype(np.int32)
    height, width, channels = transform.shape
    fraction = round(2**15 * 2 ** (-(quality % 8) / 8))
    exponent = transform.exponent - quality // 8

    def rounded(value: int, bits: int) -> int:
        """value / 2^bits, halves to even."""
        return value << -bits if bits <= 0 else int(round_half_even(value, bits))

    def round_half_even(value: int, bits: int) -> int:
        down, left = value >> bits, value & ((1 << bits) - 1)
        half = 1 << (bits - 1)
        return down + (left > half or (left == half and down & 1))

    spectrum = np.zeros((height * width, channels), object)
    for band, own in enumerate(transform.bands):
        for at in own:
            for channel in range(channels):
                total = sum(
                    int(symbols[at, k])
                    * (int(transform.gain[band, k]) * fraction >> 15)
                    * int(transform.basis[band, k, channel])
                    for k in range(channels)
                )
                limited = max(-(2**24), min(2**24, rounded(total, -exponent)))
                spectrum[at, channel] = limited
    rows, columns = (cosines(size).astype(np.int64).astype(object) for size in (height, width))
    made = np.zeros((height, width, channels), object)
    for x in range(width):
        for channel in range(channels):
            across = [
                rounded(
                    sum(columns[v, x] * spectrum[u * width + v, channel] for v in range(width)), 12
                )
                for u in range(height)
            ]
            for y in range(height):
                value = rounded(sum(rows[u, y] * across[u] for u in range(height)), 12)
                value = max(-(2**24), min(2**24, value)) * int(transform.scale[y, x])
                value += int(transform.mean[channel]) << 12
                made[y, x, channel] = max(-128, min(127, rounded(value, 20)))
    np.testing.assert_array_equal(transform.rebuilt(symbols, quality), made.astype(np.int64))


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 14, 15, 17, 28, 33, 56, 65, 128])
def test_no_machine_can_round_a_cosine_otherwise(size: int) -> None:
    exact = np.ldexp(unit_cosines(size), 12)
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-7
    gram = cosines(size) @ cosines(size).T / 2**24
    np.testing.assert_allclose(gram, np.eye(size), atol=2e-3)


def test_finer_qualities_are_nearer_and_take_more() -> None:
    sizes, errors = [], []
    for quality in (10, 20, 30, 45, 70):
        codec = Klt(OWN, quality=quality)
        payloads = [codec.encode(each) for each in TENSORS[32:]]
        rebuilt = [codec.decode(each, shape=SHAPE, dtype="INT8") for each in payloads]
        sizes.append(sum(map(len, payloads)))
        errors.append(float(np.square(np.subtract(rebuilt, TENSORS[32:], dtype=float)).mean()))
    assert sizes == sorted(set(sizes))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1


def test_every_quality_decodes_frames_of_all() -> None:
    coarse, fine = Klt(OWN, quality=12), Klt(OWN, quality=40)
    payload = fine.encode(TENSOR)
    np.testing.assert_array_equal(
        coarse.decode(payload, shape=SHAPE, dtype="INT8"),
        fine.decode(payload, shape=SHAPE, dtype="INT8"),
    )


def test_nothing_sent_is_the_mean() -> None:
    silent = replace(OWN, level=np.zeros_like(OWN.level), first=200)
    codec = Klt(silent, quality=30)
    assert codec.encode(TENSOR) == b"\x1e"
    rebuilt = codec.decode(b"\x1e", shape=SHAPE, dtype="INT8")
    np.testing.assert_array_equal(rebuilt, np.broadcast_to(np.rint(OWN.mean / 256), SHAPE))
    with pytest.raises(FrameError, match="nothing is sent"):
        codec.decode(b"\x1e\0", shape=SHAPE, dtype="INT8")


def test_a_contract_has_its_codec_by_name_and_by_wire_id() -> None:
    own = contract()
    codec = codec_by_name("klt-30", own)
    assert codec.name == "klt-30"
    decoder = codec_by_wire_id(codec.wire_id, own)
    payload = codec.encode(TENSOR)
    np.testing.assert_array_equal(
        decoder.decode(payload, shape=SHAPE, dtype="INT8"),
        codec.decode(payload, shape=SHAPE, dtype="INT8"),
    )
    bare = replace(own, codecs={})
    with pytest.raises(ValueError, match="no codec 'klt-30'"):
        codec_by_name("klt-30", bare)
    with pytest.raises(FrameError, match="not part of contract"):
        codec_by_wire_id(codec.wire_id, bare)


@pytest.mark.parametrize("name", ["klt-0", "klt-020", "klt-81", "klt--1", "klt-", "klt-²"])
def test_names_have_one_spelling(name: str) -> None:
    assert quality_of(name) is None
    assert all(quality_of(name_of(quality)) == quality for quality in range(1, 81))


def test_damage_is_refused_or_decodes_to_a_tensor() -> None:
    codec = codec_by_name("klt-40", contract())
    check_refuses_damage(codec, TENSOR)
    check_takes_only(codec, TENSOR.astype(np.int16), TENSOR[1:], TENSOR.ravel())
    payload = codec.encode(TENSOR)
    for wrong in (payload + b"\0", payload * 2, b"\0" + payload[1:], b"\x51" + payload[1:]):
        check_refuses(codec, wrong, shape=SHAPE, dtype="INT8")


@settings(max_examples=60)
@given(st.data())
def test_any_payload_is_refused_or_a_tensor(data: st.DataObject) -> None:
    """Behind a checksum that matches stands whatever a broken encoder made."""
    codec = Klt(OWN, quality=40)
    payload = bytearray(codec.encode(TENSOR))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    kept = bytes(payload[: data.draw(st.integers(0, len(payload)))])
    for each in (bytes(payload), kept):
        try:
            made = codec.decode(each, shape=SHAPE, dtype="INT8")
        except FrameError:
            continue
        assert made.shape == SHAPE
        assert made.dtype == np.int8


@given(transforms())
def test_transforms_survive_their_text(transform: Transform) -> None:
    again = Transform.parse(transform.text())
    assert again.text() == transform.text()
    for name in ("edges", "scale", "mean", "basis", "gain", "level", "shift", "top", "frequencies"):
        np.testing.assert_array_equal(getattr(again, name), getattr(transform, name))
    assert (again.shape, again.exponent, again.first) == (
        transform.shape,
        transform.exponent,
        transform.first,
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"height": 0}, "0 by 7"),
        ({"width": 129}, "9 by 129"),
        ({"height": 8}, "another shape"),
        ({"mean": np.zeros(0, np.int16)}, "0 channels"),
        ({"mean": np.zeros(257, np.int16)}, "257 channels"),
        ({"mean": np.zeros(11, np.int16)}, "other bands or channels"),
        ({"scale": np.ones((7, 9), np.uint16)}, "scale"),
        ({"scale": np.zeros((9, 7), np.uint16)}, "scale"),
        ({"exponent": 41}, "exponent 41"),
        ({"edges": np.array([3, 2, 1], np.uint32)}, "ascend"),
        ({"edges": np.array([2], np.uint32)}, "other bands"),
        ({"shift": np.full(OWN.top.size, 8, np.uint8)}, "shift up to 7"),
        ({"shift": np.zeros(1, np.uint8)}, "shift up to 7"),
        ({"top": np.full(OWN.top.size, 99, np.uint8)}, "a top from 1"),
        ({"top": np.full(OWN.top.size, 1, np.uint8)}, "other tables"),
        ({"frequencies": np.roll(OWN.frequencies, 1, axis=1)}, "and no others"),
        ({"frequencies": OWN.frequencies // 2}, "sum to 256"),
    ],
)
def test_transforms_check_themselves(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(OWN, **change)  # type: ignore[arg-type]


def bomb() -> str:
    return base64.b64encode(zlib.compress(bytes(1 << 26))).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        "AAAA",
        bomb(),
        base64.b64encode(zlib.compress(b"\1\1\1" + b"\xff" * 12)).decode(),
    ],
    ids=["nothing", "no base64", "no zlib", "bomb", "65535 cubed"],
)
def test_a_text_that_is_no_transform_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.compile("transform|cut off")):
        Transform.parse(text)


def test_a_cut_off_text_is_refused() -> None:
    raw = zlib.decompress(base64.b64decode(OWN.text()))
    for wrong in (raw[:-1], raw[:9], raw[:40], raw + b"\0", b"\2" + raw[1:]):
        with pytest.raises(ValueError, match=r"cut off|followed|version|a contract"):
            Transform.parse(base64.b64encode(zlib.compress(wrong)).decode())

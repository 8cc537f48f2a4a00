import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.shared.errors import BundleError
from hybridge.shared.manifest import (
    BuildRecord,
    Manifest,
    Precision,
    Prefix,
    Rate,
    decode_manifest,
    encode_manifest,
)
from hybridge.shared.plan import Plan

from ..cloud.bundles import CUT
from .layered import CODEC
from .layered_frames import SHAPE, table

Values = dict[str, Any]


@pytest.fixture
def encoded(path: Path) -> bytes:
    return (path / "manifest.json").read_bytes()


@pytest.fixture
def values(encoded: bytes) -> Values:
    found: Values = json.loads(encoded)
    return found


def decoded(values: Values) -> Manifest:
    return decode_manifest(json.dumps(values).encode())


def test_a_manifest_comes_back(encoded: bytes, values: Values) -> None:
    manifest = decode_manifest(encoded)
    assert encode_manifest(manifest) == encoded
    assert decoded(values) == manifest


def test_its_bytes_do_not_depend_on_order(encoded: bytes, values: Values) -> None:
    turned = json.loads(json.dumps(values), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert [*turned] != [*values]
    assert encode_manifest(decoded(turned)) == encoded


def test_every_blob_is_listed_once(encoded: bytes) -> None:
    manifest = decode_manifest(encoded)
    blobs = [blob.sha256 for blob in manifest.blobs()]
    named = {
        word
        for word in encoded.decode().split('"')
        if len(word) == 64 and word not in (manifest.large.sha256, *manifest.provenance.values())
    }
    assert sorted(blobs) == sorted(named)


def test_finding_cuts_and_contracts(encoded: bytes) -> None:
    manifest = decode_manifest(encoded)
    cut = manifest.cut(CUT)
    assert manifest.contract(Plan.cloud("raw")) == manifest.large.pixels
    assert manifest.contract(Plan.split(CUT, head="int8", codec="raw")) == cut.contract
    with pytest.raises(KeyError):
        manifest.cut("elsewhere")


RATE = {"value": 1.0, "standard_error": 0.1, "samples": 5}


def split(plan: str, *prefixes: int) -> Values:
    parts = [
        {"layers": each, "agreement": RATE, "bytes_p50": 1, "bytes_p95": 1} for each in prefixes
    ]
    row = {"plan": plan, "agreement": RATE, "accuracy": None, "bytes_p50": 1, "bytes_p95": 1}
    return {**row, "prefixes": parts} if parts else row


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("format", 3, "bundle format 3; this version reads 1 and 2"),
        ("format", "1", "Expected `int`"),
        ("name", "../etc", "matching regex"),
        ("name", "", "matching regex"),
        ("version", "0", "matching regex"),
        ("version", "1.0", "matching regex"),
        ("classes", "5", "Expected `int`"),
        ("surprise", 1, "unknown field `surprise`"),
        ("labels.sha256", "../../etc/passwd", "matching regex"),
        ("labels.sha256", "A" * 64, "matching regex"),
        ("labels.bytes", -1, ">= 0"),
        ("light.gamma", 2.2, "unknown field `gamma`"),
        ("light.output", "scores", "Invalid enum value 'scores'"),
        ("light.preprocessing.spec.size_px", 0, "size_px 0"),
        ("large.pixels.shape", [], "shape"),
        ("large.pixels.scale", 0.5, "scale and zero_point come together"),
        ("large.head_files", {"int4": None}, "Invalid enum value 'int4'"),
        ("large.cuts", [{}], "missing required field"),
        ("table", [], "lacks the local plan"),
        ("table", [split("cloud:raw")], "lacks the local plan"),
        ("table", [split("local"), split("remote:x")], "'remote:x' is no plan"),
        ("table", [split("local"), split("split:nowhere/int8/raw")], "nowhere"),
        ("table", [split("local"), split(f"split:{CUT}/float32/raw")], "the cut has no such head"),
        ("table", [split("local"), split(f"split:{CUT}/int8/affine9")], "no codec 'affine9'"),
        ("table", [split("local"), split("cloud:gif")], "no codec 'gif'"),
        ("table", [split("local"), split("cloud:raw", 1)], r"prefixes of \[1\] layers of 1"),
        ("table", [split("local", 1, 2, 3, 4)], r"layers of 1"),
        ("table", [split("local"), split("cloud:raw", 0)], ">= 1"),
    ],
)
def test_what_is_no_manifest(values: Values, where: str, value: object, message: str) -> None:
    *parents, name = where.split(".")
    record = values
    for parent in parents:
        record = record[parent]
    record[name] = value
    with pytest.raises(BundleError, match=message):
        decoded(values)


def test_a_bundle_of_format_1_is_still_read(values: Values) -> None:
    values["format"] = 1
    del values["build"]
    assert decoded(values).build == BuildRecord()


def test_another_format_is_named_whatever_it_holds() -> None:
    with pytest.raises(BundleError, match="bundle format 7; this version reads 1 and 2"):
        decode_manifest(b'{"format": 7, "parts": []}')


@pytest.mark.parametrize("encoded", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"{}" * 2])
def test_what_is_no_json(encoded: bytes) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json: "):
        decode_manifest(encoded)


@pytest.mark.parametrize(
    "field", sorted({*Manifest.__struct_fields__} - {"build", "objective", "min_agreement"})
)
def test_every_field_is_needed(values: Values, field: str) -> None:
    del values[field]
    with pytest.raises(BundleError, match=f"missing required field `{field}`"):
        decoded(values)


def test_good_rows_pass(values: Values) -> None:
    values["table"] = [split("local"), split(f"split:{CUT}/int8/affine4"), split("cloud:jpeg-75")]
    assert len(decoded(values).table) == 3


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.floats(0, n), st.just(n))))
def test_a_rate_is_a_share_with_an_error(hits_and_samples: tuple[float, int]) -> None:
    hits, samples = hits_and_samples
    rate = Rate.of(hits, samples)
    assert 0 <= rate.value <= 1
    assert abs(rate.value - hits / samples) < 1e-6
    assert 0 < rate.standard_error < 0.5 or samples > 1000
    assert Rate.of(samples - hits, samples).standard_error == rate.standard_error


def test_more_samples_make_a_rate_surer() -> None:
    errors = [Rate.of(0.9 * samples, samples).standard_error for samples in (10, 100, 1000)]
    assert errors == sorted(errors, reverse=True)
    assert errors == [0.11, 0.031, 0.01]  # Agresti and Coull, by hand


@pytest.mark.parametrize(("hits", "samples"), [(-1, 5), (6, 5), (0, 0), (float("nan"), 5)])
def test_what_is_no_rate(hits: float, samples: int) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        Rate.of(hits, samples)


def test_a_light_model_without_a_temperature_is_taken_as_it_is(values: Values) -> None:
    del values["light"]["temperature"]  # as bundles were before there were any
    assert decoded(values).light.temperature == 1.0


@pytest.mark.parametrize("temperature", [0, -1, None])
def test_a_temperature_is_above_zero(values: Values, temperature: object) -> None:
    values["light"]["temperature"] = temperature
    with pytest.raises(BundleError, match=r"\$\.light\.temperature"):
        decoded(values)


def test_prefixes_are_all_there_or_none(values: Values) -> None:
    codecs = values["large"]["cuts"][0]["contract"]["codecs"]
    codecs[CODEC] = table()
    values["large"]["cuts"][0]["contract"]["shape"] = list(SHAPE)
    plan = f"split:{CUT}/int8/{CODEC}"
    for good in ((), (1, 2, 3, 4)):
        values["table"] = [split("local"), split(plan, *good)]
        assert [each.layers for each in decoded(values).table[1].prefixes] == list(good)
    for bad in ((1,), (1, 2, 4, 3), (2, 3, 4), (1, 2, 3, 4, 5)):
        values["table"] = [split("local"), split(plan, *bad)]
        with pytest.raises(BundleError, match="prefixes of"):
            decoded(values)


def test_a_prefix_has_the_rate_of_the_clouds_precision() -> None:
    own, other = Rate.of(90, 100), Rate.of(80, 100)
    prefix = Prefix(
        layers=1, agreement=own, bytes_p50=1, bytes_p95=2, variants={Precision.INT8: other}
    )
    assert (prefix.rate(), prefix.rate(Precision.INT8)) == (own, other)
    assert prefix.rate(Precision.FLOAT16) == own

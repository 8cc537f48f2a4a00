"""Whole models and tails in the precision a cloud is told to compute in."""

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hybridge.cloud.compiler.external import externalize
from hybridge.cloud.compiler.quantization.onnx_models import dynamic_int8
from hybridge.cloud.config import CloudConfig
from hybridge.cloud.model import ServedModel
from hybridge.cloud.opening import open_shelf
from hybridge.cloud.shelf import BundleShelf
from hybridge.shared.bundle import open_bundle
from hybridge.shared.errors import BundleError, ConfigError
from hybridge.shared.manifest import Blob, Manifest, Precision, Variant, decode_manifest
from hybridge.shared.signing import SigningKey, TrustStore

from .bundles import CUT, TinyModel, random_pixels, write_bundle


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.load_or_create(tmp_path / "signing.key")


def trust_of(key: SigningKey) -> TrustStore:
    return TrustStore(frozenset({key.public_hex}))


def with_int8(path: Path, key: SigningKey, *, tails: tuple[str, ...] = (CUT,)) -> Path:
    """The tiny bundle with its graphs in dynamic int8 as well."""
    manifest = decode_manifest((path / "manifest.json").read_bytes())
    parts = externalize({name: dynamic_int8(g) for name, g in TinyModel().graphs().items()})

    def blob(content: bytes) -> Blob:
        sha256 = hashlib.sha256(content).hexdigest()
        (path / "blobs" / sha256).write_bytes(content)
        return Blob(sha256=sha256, bytes=len(content))

    variant = Variant(
        whole=blob(parts.graphs["whole"]),
        weights=blob(parts.weights),
        weights_index=blob(parts.table),
        tails={name: blob(parts.graphs["tail"]) for name in tails},
    )
    large = msgspec.structs.replace(manifest.large, variants={Precision.INT8: variant})
    _write(path, msgspec.structs.replace(manifest, large=large), key)
    return path


def _write(path: Path, manifest: Manifest, key: SigningKey) -> None:
    encoded = msgspec.json.encode(manifest)
    (path / "manifest.json").write_bytes(encoded)
    (path / "manifest.sig").write_bytes(key.sign(encoded))


def test_whole_and_tail_compute_in_the_precision_asked_for(tmp_path: Path, key: SigningKey) -> None:
    path = with_int8(write_bundle(tmp_path / "b", key=key), key)
    bundle = open_bundle(path, trust=trust_of(key))
    tiny, pixels = TinyModel(), random_pixels(0)
    answers = {}
    for precision in (Precision.FLOAT32, Precision.INT8):
        model = ServedModel.of(bundle, max_batch=2, precision=precision)
        assert model.precision is precision
        whole, tail = model.stages
        for stage in model.stages:
            stage.load()
        sent = tiny.head(pixels)[None]
        answers[precision] = [
            stage.run(batch, {}).probabilities
            for stage, batch in ((whole, pixels[None]), (tail, sent))
        ]
    for float32, int8 in zip(*answers.values(), strict=True):
        assert not np.array_equal(float32, int8)
        np.testing.assert_allclose(float32, int8, atol=0.05)


def test_a_bundle_without_it_says_what_it_has(tmp_path: Path, key: SigningKey) -> None:
    write_bundle(tmp_path / "b", key=key)
    with pytest.raises(ConfigError, match=r"not built in int8; it is there in float32 \(`tails`"):
        open_shelf(
            BundleShelf(
                root=tmp_path / "b", trust=trust_of(key), max_batch=1, precision=Precision.INT8
            )
        )


def test_every_cut_needs_a_tail(tmp_path: Path, key: SigningKey) -> None:
    path = with_int8(write_bundle(tmp_path / "b", key=key), key, tails=())
    with pytest.raises(BundleError, match="int8 tails are not those of the cuts"):
        open_bundle(path, trust=trust_of(key))


def test_a_cloud_computes_in_float32_unless_told(tmp_path: Path, key: SigningKey) -> None:
    assert CloudConfig(bundles=tmp_path, trust=trust_of(key)).precision is Precision.FLOAT32

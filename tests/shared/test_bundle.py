import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from hybridge.shared import bundle as bundle_module
from hybridge.shared.bundle import find_bundle, list_bundles, open_bundle
from hybridge.shared.errors import BundleError, UnknownModel
from hybridge.shared.signing import SigningKey, TrustStore

from ..cloud.bundles import CLASSES, write_bundle


def sign(path: Path, manifest: bytes, key: SigningKey) -> None:
    (path / "manifest.json").write_bytes(manifest)
    (path / "manifest.sig").write_bytes(key.sign(manifest))


def test_a_whole_bundle(path: Path, trust: TrustStore) -> None:
    bundle = open_bundle(path, trust=trust)
    assert bundle.labels == tuple(f"class {at}" for at in range(CLASSES))
    assert len(bundle.sha256) == 64
    assert bundle.profiles == path / "profiles"
    for blob in bundle.manifest.blobs():
        assert len(bundle.read(blob)) == blob.bytes


def test_a_bundle_without_calibration(path: Path, trust: TrustStore, key: SigningKey) -> None:
    values = json.loads((path / "manifest.json").read_bytes())
    del values["light"]["calibration"]  # as bundles were before there was any
    sign(path, json.dumps(values).encode(), key)
    assert open_bundle(path, trust=trust).calibration is None


def blob_of(path: Path, trust: TrustStore) -> Path:
    bundle = open_bundle(path, trust=trust)
    return bundle.file(bundle.manifest.large.weights)


def test_a_missing_blob(path: Path, trust: TrustStore) -> None:
    blob_of(path, trust).unlink()
    with pytest.raises(BundleError, match=r"blob [0-9a-f]{12} is missing"):
        open_bundle(path, trust=trust)


def test_every_altered_blob_is_found(path: Path, trust: TrustStore) -> None:
    files = sorted((path / "blobs").iterdir())
    assert len(files) == len(open_bundle(path, trust=trust).manifest.blobs())
    for file in files:
        content = file.read_bytes()
        flipped = bytes([content[0] ^ 1]) + content[1:]
        for altered in (flipped, content[:-1], content + b"\0", b""):
            file.write_bytes(altered)
            with pytest.raises(BundleError, match="was altered"):
                open_bundle(path, trust=trust)
        file.write_bytes(content)
    open_bundle(path, trust=trust)


def test_of_an_oversized_blob_little_is_read(
    path: Path, trust: TrustStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = blob_of(path, trust)
    honest_bytes = file.stat().st_size
    with file.open("ab") as grown:
        grown.truncate(1 << 24)  # sparse: takes no disk
    hashed: list[int] = []

    class Counting:
        def __init__(self, content: bytes = b"") -> None:
            self._digest = hashlib.sha256(content)
            self.hexdigest = self._digest.hexdigest

        def update(self, chunk: bytes) -> None:
            hashed.append(len(chunk))
            self._digest.update(chunk)

    monkeypatch.setattr(bundle_module, "hashlib", SimpleNamespace(sha256=Counting))
    monkeypatch.setattr(bundle_module, "_CHUNK_BYTES", 4096)
    with pytest.raises(BundleError, match="was altered"):
        open_bundle(path, trust=trust)
    others_bytes = sum(blob.stat().st_size for blob in (path / "blobs").iterdir()) - (1 << 24)
    assert sum(hashed) <= others_bytes + honest_bytes + 4096


def test_an_altered_manifest(path: Path, trust: TrustStore) -> None:
    manifest = path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"5000', b'"500').replace(b"5000", b"9000"))
    with pytest.raises(BundleError, match="was altered"):
        open_bundle(path, trust=trust)


def test_a_stranger_signed_it(path: Path, tmp_path: Path) -> None:
    stranger = SigningKey.load_or_create(tmp_path / "stranger.key")
    with pytest.raises(BundleError, match="does not trust"):
        open_bundle(path, trust=TrustStore(frozenset({stranger.public_hex})))
    with pytest.raises(BundleError, match="does not trust"):
        open_bundle(path, trust=TrustStore(frozenset()))


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sig"])
def test_no_manifest_or_signature(path: Path, trust: TrustStore, name: str) -> None:
    (path / name).unlink()
    with pytest.raises(BundleError, match=rf"is no bundle: No such file .*{name}"):
        open_bundle(path, trust=trust)


def test_nothing_of_a_manifest_is_believed_before_its_signature(
    path: Path, trust: TrustStore
) -> None:
    (path / "manifest.json").write_bytes(b"{ not even JSON")
    with pytest.raises(BundleError, match="was altered"):
        open_bundle(path, trust=trust)


def test_labels_and_classes_that_disagree(path: Path, trust: TrustStore, key: SigningKey) -> None:
    values = json.loads((path / "manifest.json").read_bytes())
    values["classes"] += 1
    sign(path, json.dumps(values).encode(), key)
    with pytest.raises(BundleError, match="5 labels for 6 classes"):
        open_bundle(path, trust=trust)


@pytest.fixture
def root(tmp_path: Path, key: SigningKey) -> Path:
    root = tmp_path / "several"
    for name, version in (("tiny", "2"), ("tiny", "10"), ("other", "1")):
        write_bundle(root, key=key, name=name, version=version)
    shutil.copytree(root / "tiny" / "2", root / "tiny" / ".tiny-half")
    shutil.copytree(root / "tiny" / "2", root / "tiny" / "latest")
    (root / "tiny" / "11").mkdir()
    return root


def test_what_is_there(root: Path) -> None:
    assert list_bundles(root) == {
        "other": [root / "other" / "1"],
        "tiny": [root / "tiny" / "2", root / "tiny" / "10"],
    }
    assert list_bundles(root / "nowhere") == {}


def test_finding_by_name_version_and_path(root: Path) -> None:
    assert find_bundle("tiny", root=root) == root / "tiny" / "10"
    assert find_bundle("tiny", root=root, version="2") == root / "tiny" / "2"
    by_path = str(root / "other" / "1")
    assert find_bundle(by_path, root=root / "nowhere") == root / "other" / "1"


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("small", "", r"no bundle 'small' under .* \(there: other, tiny\)"),
        ("tiny", "3", r"'tiny' has no version 3 \(there: 2, 10\)"),
        ("tiny", "latest", "no version latest"),
        ("..", "", "no bundle"),
    ],
)
def test_what_cannot_be_found(root: Path, name: str, version: str, message: str) -> None:
    with pytest.raises(UnknownModel, match=message):
        find_bundle(name, root=root, version=version)


def test_nothing_is_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="there: none"):
        find_bundle("tiny", root=tmp_path)

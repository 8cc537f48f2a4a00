"""Writes bundles: blobs first, the signed manifest last, into place in one rename."""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ...shared.errors import BuildError
from ...shared.manifest import Blob, Manifest, encode_manifest
from ...shared.signing import SigningKey


class BlobStore:
    """Contents by their hash, kept in memory until the bundle is written."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def add(self, content: bytes) -> Blob:
        """The reference under which a manifest names this content."""
        digest = hashlib.sha256(content).hexdigest()
        self.contents[digest] = content
        return Blob(sha256=digest, bytes=len(content))


def write_bundle(
    manifest: Manifest, blobs: Mapping[str, bytes], *, root: Path, key: SigningKey
) -> Path:
    """ROOT/NAME/VERSION, whole or not at all.

    The same content again changes nothing; BuildError if that version is there with another.
    """
    target = root / manifest.name / manifest.version
    encoded = encode_manifest(manifest)
    if (target / "manifest.json").is_file():
        if (target / "manifest.json").read_bytes() == encoded:
            return target
        raise BuildError(f"{target} holds another bundle; choose a new version in the recipe")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{manifest.name}-", dir=target.parent))
    try:
        staging.chmod(0o755)
        write_blobs(manifest, blobs, staging)
        (staging / "manifest.json").write_bytes(encoded)
        (staging / "manifest.sig").write_bytes(key.sign(encoded))
        staging.rename(target)
    except OSError as error:
        raise BuildError(f"cannot write {target}: {error.strerror}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def write_blobs(manifest: Manifest, blobs: Mapping[str, bytes], folder: Path) -> None:
    """FOLDER/blobs with everything a manifest names."""
    (folder / "blobs").mkdir(exist_ok=True)
    for blob in manifest.blobs():
        (folder / "blobs" / blob.sha256).write_bytes(blobs[blob.sha256])

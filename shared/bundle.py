"""Bundles on disk: found, verified and read.

BUNDLES/NAME/VERSION/manifest.json      what it is (shared/manifest.py)
                     manifest.sig       Ed25519 over manifest.json
                     blobs/SHA256       everything the manifest names
                     profiles/*.json    times, which belong to machines and not to the bundle
                     privacy.json       what its frames give away, if that was measured
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .calibration import Calibration, decode_calibration
from .errors import BundleError, UnknownModel
from .manifest import Blob, Manifest, decode_manifest
from .signing import TrustStore

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. Use `open_bundle`."""

    path: Path
    manifest: Manifest
    sha256: str

    def file(self, blob: Blob) -> Path:
        """Where a blob lies."""
        return self.path / "blobs" / blob.sha256

    def read(self, blob: Blob) -> bytes:
        return self.file(blob).read_bytes()

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.read(self.manifest.labels).decode().splitlines())

    @cached_property
    def calibration(self) -> Calibration | None:
        """The light model's; None in a bundle that was built before there was one."""
        blob = self.manifest.light.calibration
        return decode_calibration(self.read(blob)) if blob else None

    @property
    def profiles(self) -> Path:
        return self.path / "profiles"


def open_bundle(path: Path, *, trust: TrustStore) -> Bundle:
    """The bundle of a directory; BundleError unless it is whole, unaltered and trusted."""
    try:
        encoded = (path / "manifest.json").read_bytes()
        signature = (path / "manifest.sig").read_bytes()
    except OSError as error:
        raise BundleError(f"{path} is no bundle: {error.strerror} ({error.filename})") from error
    trust.verify(encoded, signature)
    manifest = decode_manifest(encoded)
    bundle = Bundle(path=path, manifest=manifest, sha256=hashlib.sha256(encoded).hexdigest())
    for blob in manifest.blobs():
        _check_blob(bundle.file(blob), blob)
    if len(bundle.labels) != manifest.classes:
        raise BundleError(f"{path}: {len(bundle.labels)} labels for {manifest.classes} classes")
    return bundle


def list_bundles(root: Path) -> dict[str, list[Path]]:
    """The bundle directories under a root, by name, oldest version first."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for manifest in root.glob("*/*/manifest.json"):
        version = manifest.parent.name
        if version.isdecimal():
            name = manifest.parent.parent.name
            found.setdefault(name, []).append((int(version), manifest.parent))
    return {name: [path for _, path in sorted(paths)] for name, paths in sorted(found.items())}


def find_bundle(name: str, *, root: Path, version: str = "") -> Path:
    """The directory of a bundle given by name (newest version unless one is named) or by path."""
    direct = Path(name)
    if (direct / "manifest.json").is_file():
        if version and direct.resolve().name != version:
            raise UnknownModel(f"{direct} is not version {version}")
        return direct
    versions = list_bundles(root).get(name, [])
    if not versions:
        known = ", ".join(list_bundles(root)) or "none"
        raise UnknownModel(f"no bundle {name!r} under {root} (there: {known})")
    if not version:
        return versions[-1]
    for path in versions:
        if path.name == version:
            return path
    known = ", ".join(path.name for path in versions)
    raise UnknownModel(f"bundle {name!r} has no version {version} (there: {known})")


def _check_blob(file: Path, blob: Blob) -> None:
    digest = hashlib.sha256()
    size = 0
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                if size > blob.bytes:
                    break  # however long it is, it is not the blob
    except OSError as error:
        raise BundleError(
            f"blob {blob.sha256[:12]} is missing ({error.strerror}: {file})"
        ) from error
    if size != blob.bytes or digest.hexdigest() != blob.sha256:
        raise BundleError(f"blob {blob.sha256[:12]} was altered ({file})")

"""Writes bundles: blobs first, the signed manifest last, into place in one rename.

A bundle is made in BUNDLES/NAME/.NAME-*, on the disk on which it will lie: nothing large waits in
memory or in a temporary folder. Who is killed leaves that folder, and the next build removes it.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...shared.bundle import Bundle
from ...shared.errors import BuildError
from ...shared.manifest import Blob, Manifest, encode_manifest
from ...shared.signing import SigningKey
from .files import remove_abandoned, write_whole, writing
from .locks import try_alone


class BlobStore:
    """Contents by their hash, in files of a folder: one of its own unless one is given."""

    def __init__(self, folder: Path | None = None) -> None:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="hybridge-blobs-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.folder = folder

    def add(self, content: bytes) -> Blob:
        """The reference under which a manifest names this content."""
        digest = hashlib.sha256(content).hexdigest()
        file = self.folder / digest
        if not file.exists():
            write_whole(file, content)
        return Blob(sha256=digest, bytes=len(content))

    def read(self, blob: Blob) -> bytes:
        return (self.folder / blob.sha256).read_bytes()


class Staging:
    """The folder in which one build makes its bundle, seen by nobody else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = BlobStore(folder / "blobs")

    @classmethod
    @contextlib.contextmanager
    def opened(cls, root: Path, name: str) -> Iterator["Staging"]:
        """A folder beside the versions of a bundle, gone afterwards whatever happens."""
        parent = root / name
        with writing(parent):
            folder, lock = _new_folder(parent, name)
            remove_abandoned(parent, f".{name}-*")
        try:
            yield cls(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
            with contextlib.suppress(OSError):  # other builds or versions are in it
                parent.rmdir()

    def bundle(self, manifest: Manifest) -> Bundle:
        """What is here, as a bundle that is not signed yet: for running what is in it."""
        return Bundle(path=self.folder, manifest=manifest, sha256="")

    def commit(self, manifest: Manifest, *, key: SigningKey) -> Path:
        """Moves what is here to NAME/VERSION, whole or not at all.

        The same content again changes nothing; BuildError if that version is there with another.
        """
        target = self.folder.parent / manifest.version
        encoded = encode_manifest(manifest)
        if _is_there(target, encoded):
            return target
        with writing(target):
            wanted = {blob.sha256 for blob in manifest.blobs()}
            for file in self.store.folder.iterdir():
                if file.name not in wanted:
                    file.unlink()
            write_whole(self.folder / "manifest.json", encoded)
            write_whole(self.folder / "manifest.sig", key.sign(encoded))
            try:
                self.folder.rename(target)
            except OSError:
                # Another build may have put the same one there a moment ago.
                if not _is_there(target, encoded):
                    raise
        return target


def write_bundle(
    manifest: Manifest, blobs: Mapping[str, bytes], *, root: Path, key: SigningKey
) -> Path:
    """ROOT/NAME/VERSION of contents by their hash, whole or not at all, as `Staging.commit`."""
    with Staging.opened(root, manifest.name) as staging:
        for blob in manifest.blobs():
            staging.store.add(blobs[blob.sha256])
        return staging.commit(manifest, key=key)


def _is_there(target: Path, encoded: bytes) -> bool:
    """Whether a bundle with this manifest is in place; BuildError if it is another."""
    manifest = target / "manifest.json"
    if not manifest.is_file():
        return False
    if manifest.read_bytes() == encoded:
        return True
    raise BuildError(f"{target} holds another bundle; choose a new version in the recipe")


def _new_folder(parent: Path, name: str) -> tuple[Path, int]:
    """A folder and the lock that says it is in use."""
    while True:
        parent.mkdir(parents=True, exist_ok=True)
        try:
            folder = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
        except FileNotFoundError:  # a build that failed has just removed its empty parent
            continue
        lock = try_alone(folder)
        if lock is not None:  # nobody took it for abandoned before it was locked
            folder.chmod(0o755)
            (folder / "blobs").mkdir()
            return folder, lock

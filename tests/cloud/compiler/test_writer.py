import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hybridge.cloud.compiler.files import remove_abandoned
from hybridge.cloud.compiler.writer import BlobStore, Staging, write_bundle
from hybridge.shared.bundle import open_bundle
from hybridge.shared.errors import BuildError
from hybridge.shared.manifest import Manifest

from ...bundles import Small

HOLD = "import sys, os, fcntl; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)"


def blobs_of(small: Small) -> dict[str, bytes]:
    manifest = small.bundle.manifest
    return {blob.sha256: small.bundle.read(blob) for blob in manifest.blobs()}


def with_budget(ms: float) -> Callable[[Manifest], Manifest]:
    return lambda manifest: msgspec.structs.replace(manifest, default_budget_ms=ms)


def test_a_store_keeps_contents_on_disk_once(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    blob = store.add(b"content")
    assert store.add(b"content") == blob
    assert store.read(blob) == b"content"
    assert [file.name for file in tmp_path.iterdir()] == [blob.sha256]


def test_a_store_of_its_own_goes_with_it() -> None:
    store = BlobStore()
    folder = store.folder
    store.add(b"content")
    del store
    assert not folder.exists()


def test_only_what_the_manifest_names_is_in_the_bundle(small: Small, tmp_path: Path) -> None:
    with Staging.opened(tmp_path, "small") as staging:
        for content in (*blobs_of(small).values(), b"tried and dropped"):
            staging.store.add(content)
        path = staging.commit(small.bundle.manifest, key=small.key)
    wanted = {blob.sha256 for blob in small.bundle.manifest.blobs()}
    assert {file.name for file in (path / "blobs").iterdir()} == wanted
    assert [entry.name for entry in path.parent.iterdir()] == ["1"]
    assert open_bundle(path, trust=small.trust).manifest == small.bundle.manifest


def test_a_build_that_fails_leaves_nothing(small: Small, tmp_path: Path) -> None:
    def fail() -> None:
        with Staging.opened(tmp_path, "small") as staging:
            staging.store.add(b"content")
            raise BuildError("no")

    with pytest.raises(BuildError, match="no"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_same_again_changes_nothing_and_another_is_refused(
    small: Small, tmp_path: Path
) -> None:
    path = small.rewrite(tmp_path, lambda manifest: manifest)
    before = (path / "manifest.json").stat().st_mtime_ns
    assert small.rewrite(tmp_path, lambda manifest: manifest) == path
    assert (path / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(BuildError, match="choose a new version"):
        small.rewrite(tmp_path, with_budget(1234.0))
    assert open_bundle(path, trust=small.trust).manifest == small.bundle.manifest
    assert [entry.name for entry in path.parent.iterdir()] == ["1"]


def test_of_two_that_finish_together_both_end_well(small: Small, tmp_path: Path) -> None:
    blobs, manifest = blobs_of(small), small.bundle.manifest
    with Staging.opened(tmp_path, "small") as one, Staging.opened(tmp_path, "small") as other:
        for staging in (one, other):
            for content in blobs.values():
                staging.store.add(content)
        assert one.commit(manifest, key=small.key) == other.commit(manifest, key=small.key)
    assert [entry.name for entry in (tmp_path / "small").iterdir()] == ["1"]


def test_a_folder_in_the_way_is_named(small: Small, tmp_path: Path) -> None:
    (tmp_path / "small" / "1" / "profiles").mkdir(parents=True)
    with pytest.raises(BuildError, match=r"cannot write .*small/1.*it is no bundle"):
        write_bundle(small.bundle.manifest, blobs_of(small), root=tmp_path, key=small.key)


def test_folders_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead = tmp_path / "small" / ".small-dead"
    (dead / "blobs").mkdir(parents=True)
    (dead / "blobs" / "aa").write_bytes(b"content")
    with Staging.opened(tmp_path, "small") as living, Staging.opened(tmp_path, "small"):
        assert not dead.exists()
        assert living.folder.is_dir()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    left = tmp_path / ".part-0"
    left.write_bytes(b"half")
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{HOLD}; print('held', flush=True); sys.stdin.read()", left],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        remove_abandoned(tmp_path)
        assert left.exists()
        holder.kill()
    remove_abandoned(tmp_path)
    assert not left.exists()


def test_a_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file")
    with (
        pytest.raises(BuildError, match=r"cannot write .*root.*name a folder"),
        Staging.opened(tmp_path / "root", "small"),
    ):
        pass

import shutil
import subprocess
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from serving import large_bundle, large_model
from serving.memory_group import memory_group

from hybridge.cloud.opening import open_shelf
from hybridge.cloud.shelf import BundleShelf
from hybridge.shared.errors import BuildError
from hybridge.shared.manifest import Runtime
from hybridge.shared.signing import SigningKey, TrustStore

MIB = 1 << 20


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of 16 KiB."""
    monkeypatch.setattr(large_bundle, "WIDTH", 64)
    monkeypatch.setattr(large_bundle, "LAYER_BYTES", 64 * 64 * 4)


def test_the_bundle_is_one_and_computes_something(
    narrow: None, tmp_path: Path, key: SigningKey, trust: TrustStore
) -> None:
    path = large_bundle.write_bundle(tmp_path, key=key, weights_bytes=MIB)
    weights = max((path / "blobs").iterdir(), key=lambda file: file.stat().st_size)
    assert MIB <= weights.stat().st_size < 1.3 * MIB
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    answers = []
    for runtime in Runtime:
        repository = open_shelf(
            BundleShelf(root=tmp_path, trust=trust, max_batch=4, runtime=runtime)
        ).repository
        answers.append(repository.model("large").whole.run(pictures, {}).probabilities)
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-5)
    assert answers[0].std(axis=0).max() > 1e-3


def test_a_disk_without_room_is_said_before_it_is_full(
    narrow: None, tmp_path: Path, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 40, 1 << 40, MIB))
    with pytest.raises(BuildError, match="1 MiB free"):
        large_bundle.write_bundle(tmp_path, key=key, weights_bytes=MIB)
    assert not (tmp_path / "large").exists()


def test_what_the_server_says_is_understood() -> None:
    found = large_model._TOLD.search(
        "large/1/whole does not fit: 524.2 MiB of its weights stay in memory, 1.5 GiB are read for "
        "every run; 1101.3 ms for one, 6.0 times the 184.2 ms it would take with all in memory"
    )
    assert found is not None
    assert found.groupdict() == {
        "kept": "524.2 MiB",
        "read": "1.5 GiB",
        "run": "1101.3",
        "slowdown": "6.0",
        "computing": "184.2",
    }


def test_a_memory_group_counts_what_runs_in_it() -> None:
    with memory_group(64 * MIB) as group:
        if group is None:
            pytest.skip("no memory cgroup may be made here")
        subprocess.run([*group.prefix, "true"], check=True)
        assert 0 < group.peak_bytes <= 64 * MIB
        assert group.kills == 0
    assert not group.folder.exists()

"""The cores a process has, in a container too."""

import os
from pathlib import Path

import pytest

from hybridge.shared import cores as cores_module
from hybridge.shared.cores import quota_cores, usable_cores


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/app", {"app/cpu.max": "50000 100000", "cpu.max": "max 100000"}, 0.5),
        (
            "0::/app/worker",
            {"app/worker/cpu.max": "max 100000", "app/cpu.max": "150000 100000"},
            1.5,
        ),
        ("0::/", {}, 0.0),
        (
            "3:cpuset:/\n1:cpu:/app",
            {"cpu/app/cpu.cfs_quota_us": "2500", "cpu/app/cpu.cfs_period_us": "10000"},
            0.25,
        ),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "10000"}, 0.0),
        ("5:cpuset:/app", {"cpuset/app/cpu.max": "1 2"}, 0.0),
    ],
)
def test_a_containers_quota(
    tmp_path: Path, groups: str, files: dict[str, str], cores: float
) -> None:
    (tmp_path / "groups").write_text(groups + "\n")
    for name, text in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert quota_cores(tmp_path / "groups", tmp_path / "cgroup") == cores
    assert quota_cores(tmp_path / "nowhere", tmp_path) == 0.0


@pytest.mark.parametrize(
    ("quota", "affine", "cores"), [(0.0, 8, 8), (0.25, 8, 1), (1.5, 8, 2), (16.0, 4, 4)]
)
def test_threads_that_can_run_at_a_time(
    monkeypatch: pytest.MonkeyPatch, quota: float, affine: int, cores: int
) -> None:
    monkeypatch.setattr(cores_module, "quota_cores", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affine)))
    assert usable_cores() == cores

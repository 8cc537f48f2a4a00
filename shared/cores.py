"""How many processor cores this process has: by affinity, and by its control group's quota."""

import math
import os
from pathlib import Path

_GROUPS, _ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def affine_cores() -> int:
    """The cores this process may run on."""
    return len(os.sched_getaffinity(0))


def quota_cores(groups: Path = _GROUPS, root: Path = _ROOT) -> float:
    """How many cores' time a container's CPU quota leaves this process; 0 if there is no quota.

    The tightest of its control groups and theirs above it, version 2 or 1: `cpu.max` or
    `cpu.cfs_quota_us` (Linux, Documentation/admin-guide/cgroup-v2.rst and sched-bwc.rst).
    """
    quotas: list[float] = []
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return 0.0
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        folder = root / (controllers or ".") / path.lstrip("/")
        within = [folder, *folder.parents]
        for each in within[: within.index(root) + 1]:
            quotas.extend(_quotas_of(each))
    return round(min(quotas), 2) if quotas else 0.0


def usable_cores() -> int:
    """How many threads can run at a time here: by affinity, and by quota rounded up."""
    there, quota = affine_cores(), quota_cores()
    return min(there, math.ceil(quota)) if quota else there


def _quotas_of(folder: Path) -> list[float]:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return [int(quota) / int(period)] if int(quota) > 0 else []
    except (OSError, ValueError):  # no such file here, or "max": no quota
        return []

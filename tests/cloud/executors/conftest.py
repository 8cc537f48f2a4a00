"""Stages and pools for tests of what computes elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hybridge.cloud.executors.pool import ReplicaPool
from hybridge.cloud.stage import Stage

if TYPE_CHECKING:
    from hybridge.shared.signing import TrustStore

PATIENCE_S = 60.0


async def until(condition: Callable[[], bool]) -> None:
    """Returns once something is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - of other processes, which tell nobody
            await asyncio.sleep(0.01)


def pids(pool: ReplicaPool) -> list[int]:
    """The processes that are ready."""
    staff = pool.staff
    assert staff is not None
    return list(staff.processes.values())


def signal_all(pool: ReplicaPool, number: int) -> None:
    for pid in pids(pool):
        os.kill(pid, number)


async def stop_all(pool: ReplicaPool) -> None:
    await stop(pids(pool))


async def stop(processes: list[int]) -> None:
    """Stops processes, and returns once none of their threads goes on."""
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    await until(lambda: all(_stopped(pid) for pid in processes))


def _stopped(pid: int) -> bool:
    stats = [thread / "stat" for thread in Path(f"/proc/{pid}/task").iterdir()]
    return all(stat.read_text().rpartition(") ")[2][0] == "T" for stat in stats)


@pytest.fixture
def stage(bundles: Path, trust: TrustStore) -> Stage:
    """The whole of tiny/1, loaded here; two requests are never one batch."""
    from hybridge.cloud.opening import open_shelf
    from hybridge.cloud.shelf import BundleShelf

    return (
        open_shelf(BundleShelf(root=bundles, trust=trust, max_batch=1))
        .repository.model("tiny")
        .whole
    )

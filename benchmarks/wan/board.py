"""A small board, resembled by a quota: a cgroup in which a process gets a share of one core.

A period of 10 ms keeps the tail tight: whoever has used up a quarter waits 7.5 ms at most.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridge.shared.errors import ConfigError

_ROOT = Path("/sys/fs/cgroup/cpu")
_PERIOD_US = 10_000
CORE = max(os.sched_getaffinity(0))
OTHERS = sorted(os.sched_getaffinity(0) - {CORE}) or [CORE]
"""Where everything else runs."""
_TICKS = os.sysconf("SC_CLK_TCK")
_JOIN = 'echo $$ > "$0"/cgroup.procs && exec taskset -c {core} "$@"'


@dataclass(frozen=True, slots=True)
class Throttling:
    """How often the quota was used up, since the board exists."""

    periods: int
    throttled: int
    throttled_s: float


@dataclass(frozen=True, slots=True)
class Board:
    """A share of one core, the last, for whoever joins.

    On one core the threads' priorities mean what they mean on a small board; on several a quota is
    used up by whoever runs first.
    """

    path: Path
    share: float

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command that runs another one on the board, all its threads with it."""
        return ["sh", "-c", _JOIN.format(core=CORE), str(self.path), *arguments]

    def throttling(self) -> Throttling:
        lines = (self.path / "cpu.stat").read_text().splitlines()
        values = dict(line.split() for line in lines)
        return Throttling(
            periods=int(values["nr_periods"]),
            throttled=int(values["nr_throttled"]),
            throttled_s=int(values["throttled_time"]) / 1e9,
        )


def why_not() -> str:
    """What keeps this process from having a quota; empty if nothing does."""
    if not (_ROOT / "cpu.cfs_quota_us").exists():
        return f"no CPU quota at {_ROOT} (cgroup v1)"
    return "" if os.access(_ROOT, os.W_OK) else f"{_ROOT} cannot be written"


@contextlib.contextmanager
def board(share: float) -> Iterator[Board]:
    """Makes one; ConfigError where that is not possible. Its processes must end before it does."""
    if not 0.02 <= share <= 64:
        raise ConfigError(f"a board's share of one core must be 0.02 to 64, not {share:g}")
    if reason := why_not():
        raise ConfigError(f"no board can be resembled here: {reason}")
    path = _ROOT / f"hybridge-board-{os.getpid()}"
    path.mkdir(exist_ok=True)
    try:
        (path / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (path / "cpu.cfs_quota_us").write_text(str(round(share * _PERIOD_US)))
        yield Board(path, share)
    finally:
        path.rmdir()


def cpu_s(pid: int) -> float:
    """The processor time of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS

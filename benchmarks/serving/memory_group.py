"""A memory cgroup, as a container has one: what the kernel lets its processes take, and counts."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryGroup:
    """A cgroup of version 1 or 2; page cache counts in it, and is taken back before it is full."""

    folder: Path
    first: bool

    @property
    def prefix(self) -> Sequence[str]:
        """The beginning of a command line that runs the rest of it in this group."""
        join = f'echo $$ > {self.folder / "cgroup.procs"} && exec "$@"'
        return ("sh", "-c", join, "sh")

    @property
    def peak_bytes(self) -> int:
        """The most that was ever counted, page cache included."""
        name = "memory.max_usage_in_bytes" if self.first else "memory.peak"
        return int((self.folder / name).read_text())

    @property
    def kills(self) -> int:
        """How often the kernel killed a process because nothing could be taken back."""
        name = "memory.oom_control" if self.first else "memory.events"
        fields = dict(line.split() for line in (self.folder / name).read_text().splitlines())
        return int(fields["oom_kill"])


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup | None]:
    """A group that may take so much; None where this process may not make one."""
    first = (_ROOT / "memory").is_dir()
    folder = (_ROOT / "memory" if first else _ROOT) / f"hybridge-{os.getpid()}"
    limit = folder / ("memory.limit_in_bytes" if first else "memory.max")
    try:
        folder.mkdir()
    except OSError:
        yield None
        return
    try:
        limit.write_text(str(limit_bytes))
        yield MemoryGroup(folder, first)
    except FileNotFoundError:  # the memory controller is not given to groups here
        yield None
    finally:
        folder.rmdir()

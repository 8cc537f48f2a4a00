"""Locks on files and folders that end with the process that holds them (flock, POSIX)."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ...shared.errors import BuildError


@contextlib.contextmanager
def held(file: Path, *, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds a lock file alone, waiting for whoever has it; the file is there only that long."""
    descriptor = _take(file, on_wait)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is ours: who waits finds it gone and starts again
        os.close(descriptor)


def try_alone(path: Path) -> int | None:
    """A descriptor that locks a file or folder, or None if it is gone or somebody else's.

    The lock ends with os.close.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    if _lock(path, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) and _is_still(path, descriptor):
        return descriptor
    os.close(descriptor)
    return None


def share(path: Path, descriptor: int) -> None:
    """Marks an open file as in use, beside others who use it."""
    _lock(path, descriptor, fcntl.LOCK_SH)


def _take(file: Path, on_wait: Callable[[], None]) -> int:
    waited = False
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise BuildError(f"cannot write {file}: {error.strerror}") from error
        if not _lock(file, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
            if not waited:
                on_wait()
                waited = True
            _lock(file, descriptor, fcntl.LOCK_EX)
        if _is_still(file, descriptor):
            return descriptor
        os.close(descriptor)


def _lock(path: Path, descriptor: int, kind: int) -> bool:
    """Whether it is locked now; BuildError where a file system knows no locks."""
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise BuildError(
                f"{path.parent} is on a file system without locks; "
                "set HYBRIDGE_HOME to a folder on a local disk"
            ) from error
        raise
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether a path still means the file that was opened, and not a later one of that name."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))

"""Notes that a version is being loaded, by which a cloud knows what an earlier one died of.

A version that takes the process down with it, by a crash in a runtime's own code or for memory,
would do so at each restart. A note is locked as long as whoever wrote it lives.
"""

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)


def note_of(version: Path) -> Path:
    """Where a version's note lies while it is loaded."""
    return version.with_name(f".loading-{version.name}")


def ended_one(version: Path, *, mark: str) -> bool:
    """Whether a process ended while it loaded these very files, which `mark` tells from others."""
    try:
        with note_of(version).open("r+b") as note:
            if note.read().decode(errors="replace") != mark:
                return False
            fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # no note, or its writer is at work
        return False
    return True


@contextlib.contextmanager
def attempt(version: Path, *, mark: str) -> Iterator[None]:
    """Within, the version is loaded; where no note can be written it goes without."""
    note = note_of(version)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(note.open("wb", buffering=0))
            stack.callback(_forget, note)  # whatever was raised, the process lives
            fcntl.flock(file, fcntl.LOCK_SH)
            file.write(mark.encode())
        except OSError as error:  # not ours to write to, or a full disk
            log.debug("no note while %s is loaded: %s", version, error)
        yield


def _forget(note: Path) -> None:
    with contextlib.suppress(OSError):  # a folder may be made read-only while one loads from it
        note.unlink()

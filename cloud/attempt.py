"""Notes that a version is being loaded, by which a cloud knows what an earlier one died of.

A version that takes the process down with it, by a crash in a runtime's own code or for memory,
would do so at each restart. A note is locked as long as whoever wrote it lives.
"""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def attempt(version: Path, *, mark: str) -> Iterator[None]:
    """Within, the version is loaded; a directory that is not ours to write to gets no note."""
    note = note_of(version)
    try:
        file = note.open("wb")
    except OSError as error:
        log.debug("no note while %s is loaded: %s", version, error)
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_SH)
        file.write(mark.encode())
        file.flush()
        try:
            yield
        finally:  # whatever was raised, the process lives
            note.unlink(missing_ok=True)

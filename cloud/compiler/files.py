"""Writing files so that a build that dies leaves neither half a file nor rubbish for ever."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ...shared.errors import BuildError
from .locks import share, try_alone

_PART = ".part-"
_NEXT_STEP = {
    errno.ENOSPC: "free some space, or name a folder on another disk",
    errno.EDQUOT: "free some of your quota, or name a folder on another disk",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EACCES: "give yourself the right to write there, or name another folder",
    errno.EPERM: "give yourself the right to write there, or name another folder",
    errno.EROFS: "name a folder on a disk that can be written",
    errno.ENOTDIR: "name a folder",
    errno.EEXIST: "name a folder",
    errno.ENOTEMPTY: "remove what is there, it is no bundle, or choose another version",
}

_CHECK_PATH = "check its path"
_TO_READ = {
    errno.ENOENT: _CHECK_PATH,
    errno.EACCES: "give yourself the right to read it",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: _CHECK_PATH,
}


def unreadable(file: Path, error: OSError, *, named_by: str = "the recipe") -> BuildError:
    """What the system said of a file that somebody names ("": the caller), and what to do."""
    next_step = _TO_READ.get(error.errno or 0, "")
    if next_step == _CHECK_PATH and named_by:
        next_step += f", which is relative to {named_by}"
    said = "; ".join(filter(None, (error.strerror, next_step)))
    return BuildError(f"cannot read {file}: {said}")


@contextlib.contextmanager
def writing(what: Path) -> Iterator[None]:
    """Turns what goes wrong with a file or folder into a BuildError that says what to do."""
    try:
        yield
    except OSError as error:
        raise BuildError(f"cannot write {what}: {explained(error, named=True)}") from error


def explained(error: OSError, *, named: bool = False) -> str:
    """What the system said, of which file unless that is `named` already, and what to do."""
    said = str(error.strerror or error)
    if error.filename and not named:
        said = f"{said} ({error.filename})"
    next_step = _NEXT_STEP.get(error.errno or 0)
    return f"{said}; {next_step} (HYBRIDGE_HOME, --bundles, TMPDIR)" if next_step else said


def write_whole(file: Path, *parts: bytes) -> None:
    """Writes the parts, one after the other, so that the file is never seen half-written."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        part, descriptor = _new_part(file.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                for content in parts:
                    stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
                part.replace(file)  # before the lock on it ends
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def remove_abandoned(folder: Path, pattern: str = f"{_PART}*") -> None:
    """Removes what processes left that were killed; those that live hold locks on theirs."""
    for left in folder.glob(pattern):
        descriptor = try_alone(left)
        if descriptor is not None:
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
            os.close(descriptor)


def _new_part(folder: Path) -> tuple[Path, int]:
    while True:
        part = folder / f"{_PART}{secrets.token_hex(8)}"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        share(part, descriptor)
        if part.exists():  # nobody took it for abandoned between the two lines above
            return part, descriptor
        os.close(descriptor)

"""Finished steps of a build, by a hash of all that went into them: how a build resumes."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...shared.errors import BuildError


@dataclass(frozen=True)
class StepCache:
    """Files under a folder; a step's file is there whole or not at all.

    Two builds at once do not harm each other: at worst both make the same file.
    """

    folder: Path

    def get(self, step: str, *, inputs: object, make: Callable[[], bytes]) -> bytes:
        """A step's result: from an earlier build if its inputs (JSON values) were the same."""
        text = json.dumps([step, inputs], sort_keys=True, default=str)
        file = self.folder / f"{step}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
        try:
            return file.read_bytes()
        except FileNotFoundError:
            pass
        result = make()
        write_whole(file, result)
        return result


def write_whole(file: Path, content: bytes) -> None:
    """Writes a file so that it is never seen half-written; BuildError if the disk is full."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as temporary:
            part = Path(temporary.name)
            part.chmod(0o644)
            try:
                temporary.write(content)
                temporary.flush()
                os.fsync(temporary.fileno())
                part.replace(file)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise BuildError(f"cannot write {file}: {error.strerror}") from error

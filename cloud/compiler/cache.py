"""Finished steps of a build, by a hash of all that went into them: how a build resumes.

CACHE/STEP-KEY         what a step gave, behind a header with its hash
      STEP-KEY.lock    there while a process makes that step; others who want it wait
      .part-*          there while a process writes

Locks end with their process, whatever ends it. A step that a live build used is locked as in use
and is not dropped; of the others the least recently used go first when the folder grows too large.
"""

import hashlib
import logging
import os
import weakref
from collections.abc import Callable
from pathlib import Path

import msgspec

from ...shared.errors import BuildError
from .files import remove_abandoned, write_whole, writing
from .locks import held, share, try_alone

DEFAULT_SIZE_BYTES = 20 * 10**9
"""Some fifteen builds of a ViT-B/16, which leave 1.3 GB each, or a hundred of an EfficientNet."""

_MAGIC = b"hybridge step 1\n"
_LOCK = ".lock"
_HEADER_BYTES = len(_MAGIC) + hashlib.sha256().digest_size

_log = logging.getLogger(__name__)


class StepCache:
    """Steps in files under a folder; a step's file is there whole or not at all.

    Builds at the same time share a folder: what two of them want, one makes while the other waits.
    `made` and `reused` name the steps in their order. Not for several threads at once.
    """

    def __init__(self, folder: Path, *, size_bytes: int = DEFAULT_SIZE_BYTES) -> None:
        self.folder = folder
        self.size_bytes = size_bytes
        self.made: list[str] = []
        self.reused: list[str] = []
        self._in_use: list[int] = []
        weakref.finalize(self, _close, self._in_use)

    def get(self, step: str, *, inputs: object, make: Callable[[], bytes]) -> bytes:
        """A step's result: from an earlier build if its inputs (JSON values) were the same."""
        file = self.folder / f"{step}-{step_key(step, inputs)}"
        found = self._read(file)
        if found is None:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            with held(Path(f"{file}{_LOCK}"), on_wait=lambda: _log.info("waiting for %s", step)):
                found = self._read(file)  # somebody else may have made it meanwhile
                if found is None:
                    result = make()
                    write_whole(file, _MAGIC, hashlib.sha256(result).digest(), result)
                    self._use(file)
                    self.made.append(step)
                    self._drop_old()
                    return result
        self.reused.append(step)
        return found

    def _read(self, file: Path) -> bytes | None:
        """What a file holds, marked as in use; None if it is not there, or damaged."""
        try:
            with file.open("rb") as stream:
                share(file, stream.fileno())
                header = stream.read(_HEADER_BYTES)
                content = stream.read()
                if header == _MAGIC + hashlib.sha256(content).digest():
                    os.utime(stream.fileno())
                    self._in_use.append(os.dup(stream.fileno()))
                    return content
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise BuildError(
                f"cannot read {file}: {error.strerror}; "
                "remove it, or set HYBRIDGE_HOME to a folder of your own"
            ) from error
        _log.warning("%s is damaged and is made again", file)
        return None

    def _use(self, file: Path) -> None:
        try:
            descriptor = os.open(file, os.O_RDONLY)
        except FileNotFoundError:  # dropped by another build with a smaller cache
            return
        share(file, descriptor)
        self._in_use.append(descriptor)

    def _drop_old(self) -> None:
        """Makes the folder fit again, and removes what killed builds left."""
        remove_abandoned(self.folder)
        remove_abandoned(self.folder, f"*{_LOCK}")
        files = []
        for file in self.folder.iterdir():
            try:
                status = file.stat()
            except FileNotFoundError:
                continue
            if file.suffix != _LOCK:
                files.append((status.st_mtime_ns, status.st_size, file))
        excess = sum(size for _, size, _ in files) - self.size_bytes
        for _, size, file in sorted(files):
            if excess <= 0:
                return
            descriptor = try_alone(file)
            if descriptor is not None:
                file.unlink(missing_ok=True)
                os.close(descriptor)
                excess -= size


def step_key(step: str, inputs: object) -> str:
    """The same for equal inputs in every process; TypeError for what is no plain value.

    Sets and mappings are sorted, dataclasses taken by their fields. What has no value but an
    address, as most objects, would make every run another one.
    """
    encoded = msgspec.json.encode([step, inputs], order="sorted", enc_hook=_no_value)
    return hashlib.sha256(encoded).hexdigest()[:32]


def _no_value(thing: object) -> object:
    raise TypeError(f"{type(thing).__name__} cannot be part of a step's key")


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

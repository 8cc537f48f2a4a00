"""The large model's answers on disk, by picture: each is computed once, whoever trains on it."""

import fcntl
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..compiler.files import writing

Floats = npt.NDArray[np.float32]

_KEY_BYTES = 32


def picture_key(encoded: bytes, *, view: int = 0) -> bytes:
    """Whose answer it is: one view of a picture file's content, wherever the file lies.

    >>> len(picture_key(b"a picture"))
    32
    """
    return hashlib.sha256(hashlib.sha256(encoded).digest() + view.to_bytes(4, "little")).digest()


@dataclass(frozen=True)
class AnswerStore:
    """A file of records (key, checksum, float32 [classes]), appended to and memory-mapped.

    Several processes may append at once. What a killed one left behind half-written is cut off by
    the next that appends; a record whose checksum is wrong counts as absent.
    """

    file: Path
    classes: int

    @property
    def _record(self) -> np.dtype[Any]:
        return np.dtype(
            [
                ("key", f"V{_KEY_BYTES}"),
                ("checksum", "<u4"),
                ("values", "<f4", (self.classes,)),
            ]
        )

    def append(self, key: bytes, values: Floats) -> None:
        """Adds one answer; BuildError if the disk is full."""
        if values.shape != (self.classes,):
            raise ValueError(f"an answer of shape {values.shape}, not ({self.classes},)")
        content = key + values.astype("<f4").tobytes()
        encoded = key + zlib.crc32(content).to_bytes(4, "little") + content[_KEY_BYTES:]
        with writing(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                self._cut_off_half_record(stream)
                stream.write(encoded)

    def positions(self) -> dict[bytes, int]:
        """Where each whole answer stands in the file."""
        records = self._records()
        found: dict[bytes, int] = {}
        for position, record in enumerate(records):
            key = record["key"].tobytes()
            if zlib.crc32(key + record["values"].tobytes()) == int(record["checksum"]):
                found[key] = position
        return found

    def read(self, keys: Sequence[bytes]) -> Floats:
        """The answers to these pictures, float32 [n, classes]; KeyError for one that is missing."""
        found = self.positions()
        rows = [found[key] for key in keys]
        values: Floats = np.asarray(self._records()["values"][rows], np.float32)
        return values

    def _records(self) -> npt.NDArray[np.void]:
        count = self.file.stat().st_size // self._record.itemsize if self.file.exists() else 0
        if count == 0:
            return np.empty(0, self._record)
        return np.memmap(self.file, self._record, "r", shape=(count,))

    def _cut_off_half_record(self, stream: IO[bytes]) -> None:
        size = stream.seek(0, 2)
        if rest := size % self._record.itemsize:
            stream.truncate(size - rest)
            stream.seek(0, 2)

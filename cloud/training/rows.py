"""Arrays on disk, filled row by row and memory-mapped: pixels, and features of a backbone."""

import fcntl
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...shared.errors import BuildError
from ...shared.sizes import written_bytes
from ..compiler.files import writing


@dataclass(frozen=True)
class RowFile:
    """`count` rows of one shape and dtype; the file's size tells how many there are."""

    file: Path
    shape: tuple[int, ...]
    dtype: type[np.generic]
    count: int

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def filled(
        self,
        make: Callable[[int, int], npt.NDArray[Any]],
        *,
        chunk: int = 1,
        on_rows: Callable[[int, int], None] = lambda done, total: None,
    ) -> npt.NDArray[Any]:
        """All rows, read-only; `make(start, stop)` is asked for those not yet in the file.

        A second process that wants the same file waits for the first. BuildError if the disk is
        full.
        """
        with writing(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                done = stream.seek(0, 2) // self.row_bytes
                self._check_room(done)
                stream.truncate(done * self.row_bytes)
                while done < self.count:
                    on_rows(done, self.count)
                    stop = min(self.count, done + chunk)
                    rows = np.ascontiguousarray(make(done, stop), self.dtype)
                    if rows.shape != (stop - done, *self.shape):
                        raise ValueError(f"rows of {rows.shape[1:]}, not {self.shape}")
                    stream.write(rows.tobytes())
                    done = stop
        return np.memmap(self.file, self.dtype, "r", shape=(self.count, *self.shape))

    def _check_room(self, done: int) -> None:
        needed = (self.count - done) * self.row_bytes
        free = shutil.disk_usage(self.file.parent).free
        if needed > free:
            raise BuildError(
                f"{self.file.parent} has {written_bytes(free)} free and {written_bytes(needed)} "
                "are needed; make room, set HYBRIDGE_HOME elsewhere, or take fewer pictures or "
                "views"
            )

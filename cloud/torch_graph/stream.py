"""Weights that come from a file while a graph runs: a thread reads ahead into few buffers."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...shared.errors import ModelFault
from ...shared.tensor import Array
from ..weights import Weights

_ALIGNMENT_BYTES = 64

Buffer = npt.NDArray[np.uint8]
Reads = Sequence[tuple[str, ...]]
"""The weights that each step of a run needs, for the steps that need any."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Where an array lies in a file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class WeightsFile:
    """Arrays of a file, read into memory of ours and not left in the system's page cache.

    Read once per run, in a circle, they would never be found there again, but count as ours
    wherever memory is limited (cgroups), and drive out what others need.
    """

    def __init__(self, path: Path, extents: Mapping[str, Extent]) -> None:
        self.extents = extents
        self._path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    @classmethod
    def of(cls, weights: Weights) -> "WeightsFile":
        """The file that mapped weights are mapped from."""
        assert isinstance(weights.blob, np.memmap), "they are in memory alone"
        start = weights.blob.ctypes.data
        extents = {
            name: Extent(array.ctypes.data - start, array.shape, array.dtype)
            for name, array in weights.arrays.items()
        }
        in_order = dict(sorted(extents.items(), key=lambda item: item[1].offset))
        return cls(Path(str(weights.blob.filename)), in_order)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read(self, name: str, into: Buffer | None = None) -> Tensor:
        """One array, at the start of a buffer if one is given; ModelFault if it is not there."""
        extent = self.extents[name]
        buffer = np.empty(extent.bytes, np.uint8) if into is None else into
        view, done = buffer.data, 0
        while done < extent.bytes:
            try:
                count = os.preadv(self._file, [view[done : extent.bytes]], extent.offset + done)
            except OSError as error:
                raise ModelFault(f"{self._path} cannot be read: {error.strerror}") from error
            if not count:
                raise ModelFault(f"{self._path} ends within {name!r}")
            done += count
        os.posix_fadvise(self._file, extent.offset, extent.bytes, os.POSIX_FADV_DONTNEED)
        return self.lying(name, buffer)

    def lying(self, name: str, buffer: Buffer) -> Tensor:
        """The bytes at the start of a buffer as this array, whatever they are."""
        extent = self.extents[name]
        array: Array = buffer[: extent.bytes].view(extent.dtype).reshape(extent.shape)
        return torch.from_numpy(array)


class Stream:
    """The weights of one run in their order. For one run at a time."""

    def __init__(self, file: WeightsFile, *, buffer_bytes: int, buffers: int) -> None:
        self._file = file
        self._buffers = [np.empty(buffer_bytes, np.uint8) for _ in range(buffers)]
        self._free: SimpleQueue[Buffer | None] = SimpleQueue()
        self._filled: SimpleQueue[dict[str, Tensor] | Exception] = SimpleQueue()
        self._used: list[Buffer] = []
        self._there: dict[str, Tensor] = {}

    @contextmanager
    def run(self, reads: Reads, *, dry: bool = False) -> Iterator[None]:
        """Reads ahead within a block, in which each group is asked for with `arrive`.

        A `dry` run reads nothing and gives what lies in its buffers.
        """
        self._free, self._filled = SimpleQueue(), SimpleQueue()
        for buffer in self._buffers:
            self._free.put(buffer)
        reader = Thread(target=self._read_all, args=(reads, dry), name="weights", daemon=True)
        reader.start()
        try:
            yield
        finally:
            self._free.put(None)
            reader.join()
            self._there = {}

    def arrive(self) -> None:
        """The next group is there for `take`, and the one before it no more."""
        found = self._filled.get()
        if isinstance(found, Exception):
            raise found
        self._there = found

    def take(self, name: str) -> Tensor:
        """A weight of the group that has arrived."""
        return self._there[name]

    def leave(self) -> None:
        """The group that has arrived is not needed any more."""
        self._there = {}
        self._free.put(self._used.pop(0))

    def _read_all(self, reads: Reads, dry: bool) -> None:
        bring = self._file.lying if dry else self._file.read
        try:
            for group in reads:
                buffer = self._free.get()
                if buffer is None:
                    return
                self._used.append(buffer)
                self._filled.put(self._group(group, buffer, bring))
        except Exception as error:  # it belongs to the run that waits for it
            self._filled.put(error)

    def _group(
        self, names: tuple[str, ...], buffer: Buffer, bring: Callable[[str, Buffer], Tensor]
    ) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        at = 0
        for name in names:
            made[name] = bring(name, buffer[at:])
            at += -(-self._file.extents[name].bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        return made


def group_bytes(names: tuple[str, ...], extents: Mapping[str, Extent]) -> int:
    """The buffer that a step's weights take."""
    return sum(-(-extents[name].bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES for name in names)


def made_dtype(extent: Extent, dtype: torch.dtype) -> torch.dtype:
    """What an array is in memory, where floats have this dtype."""
    as_it_is: torch.dtype = getattr(torch, extent.dtype.name)
    return dtype if as_it_is.is_floating_point else as_it_is


def made_bytes(extent: Extent, dtype: torch.dtype) -> int:
    """What it takes there."""
    return extent.bytes // extent.dtype.itemsize * made_dtype(extent, dtype).itemsize

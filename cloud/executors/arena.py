"""How parcels cross between two processes of one machine: heads by a socket, buffers in memory.

    near end ── head bytes, where its buffers lie ──▶ far end      a stream socket
             ══ buffers ══════════════════════════════             an anonymous file, mapped twice

The two take turns: an order, then what it leads to. An answer's buffers are laid behind those of
its order, which it may still be made of.
"""

import mmap
import os
import struct
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from .parcel import Buffer, Parcel

HEAD = struct.Struct("<QQI")
"""Bytes of the pickle, where the buffers begin in the arena, and how many they are."""
_SIZE = struct.Struct("<Q")
_ALIGNMENT_BYTES = 64
_LEAST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Note:
    """What crosses by the socket, as far as it has been read."""

    head_bytes: int
    start: int
    buffers: int

    @classmethod
    def read(cls, fixed: bytes) -> "Note":
        return cls(*HEAD.unpack(fixed))

    @property
    def rest_bytes(self) -> int:
        """What follows the fixed part."""
        return self.head_bytes + _SIZE.size * self.buffers


class Arena:
    """Memory that two processes share; grows when a parcel needs it."""

    def __init__(self, file: int) -> None:
        """`file` is the descriptor of an anonymous file; it stays the caller's."""
        self.file = file
        self._view = memoryview(b"")

    @classmethod
    def create(cls) -> "Arena":
        """New memory, whose descriptor is closed when nobody uses the arena any more."""
        arena = cls(os.memfd_create("hybridge", os.MFD_CLOEXEC))
        weakref.finalize(arena, os.close, arena.file)
        return arena

    def write(self, parcel: Parcel, *, start: int = 0) -> bytes:
        """Lays the buffers of a parcel down from `start`; what has to cross by the socket."""
        at = start = _aligned(start)
        self._reach(at + 1)
        for buffer in parcel.buffers:
            self._reach(at + buffer.nbytes)
            self._view[at : at + buffer.nbytes] = buffer
            at = _aligned(at + buffer.nbytes)
        sizes = b"".join(_SIZE.pack(buffer.nbytes) for buffer in parcel.buffers)
        fixed = HEAD.pack(len(parcel.head), start, len(parcel.buffers))
        return b"".join((fixed, sizes, parcel.head))

    def read(self, note: Note, rest: bytes) -> tuple[Parcel, int]:
        """A parcel whose buffers lie in the arena, until the next is written; where they end."""
        at = note.start
        buffers: list[Buffer] = []
        table = rest[: _SIZE.size * note.buffers]
        for (size,) in _SIZE.iter_unpack(table):
            self._reach(at + size)
            buffers.append(self._view[at : at + size].toreadonly())
            at = _aligned(at + size)
        return Parcel(rest[len(table) :], buffers), at

    def _reach(self, size: int) -> None:
        if size <= self._view.nbytes:
            return
        wanted = max(_LEAST_BYTES, 1 << (size - 1).bit_length())
        if os.fstat(self.file).st_size < wanted:
            os.ftruncate(self.file, wanted)
        self._view = memoryview(mmap.mmap(self.file, wanted))


def owned(parcel: Parcel) -> Parcel:
    """The same parcel with buffers of its own."""
    copies: Sequence[Buffer] = [memoryview(bytes(buffer)) for buffer in parcel.buffers]
    return Parcel(parcel.head, copies)


def _aligned(at: int) -> int:
    return -(-at // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES

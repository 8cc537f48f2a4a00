"""Values on their way between processes of one cloud: pickled, large arrays beside the pickle.

Only ever between a cloud and processes that it started itself, or the actors of its cluster.
"""

import io
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Buffer = memoryview
Place = int
"""The number by which both ends know a value that is not sent again with each parcel."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A pickle, and the buffers that belong into it, in order."""

    head: bytes
    buffers: Sequence[Buffer]

    @property
    def bytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.buffers)


def pack(value: object, *, known: object = None, place: Place = 0) -> Parcel:
    """A value as a parcel, in which `known` is only named by its place."""
    stream = io.BytesIO()
    buffers: list[Buffer] = []
    _Pickler(stream, buffers, known, place).dump(value)
    return Parcel(stream.getvalue(), buffers)


def unpack(parcel: Parcel, *, look_up: Callable[[Place], object] | None = None) -> Any:
    """What was packed; its arrays borrow the buffers."""
    return _Unpickler(parcel, look_up).load()


class _Pickler(pickle.Pickler):
    def __init__(
        self, stream: io.BytesIO, buffers: list[Buffer], known: object, place: Place
    ) -> None:
        def take(buffer: pickle.PickleBuffer) -> None:
            buffers.append(buffer.raw())

        super().__init__(stream, protocol=5, buffer_callback=take)
        self._known = known
        self._place = place

    def persistent_id(self, value: object) -> Place | None:
        return self._place if value is self._known and value is not None else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, parcel: Parcel, look_up: Callable[[Place], object] | None) -> None:
        super().__init__(io.BytesIO(parcel.head), buffers=parcel.buffers)
        self._look_up = look_up

    def persistent_load(self, place: Place) -> object:
        if self._look_up is None:
            raise pickle.UnpicklingError("nothing is known by its place here")
        return self._look_up(place)

"""How much of requests and their answers may be in memory at a time, however many come.

What is taken is given back when the answer is out, not when it is made: whoever does not read
answers keeps them in memory. So that such a one keeps the others from nothing, one connection may
have no more than a part. All methods belong to one event loop.
"""

from types import TracebackType

from ..shared.errors import Overloaded
from ..shared.receiving import Receiving
from ..shared.rpc import Doors
from ..shared.security import MAX_MESSAGE_BYTES
from ..shared.sizes import written_bytes
from .statistics import ModelFigures, Refusal, code_of

CONNECTIONS_SHARE = 4
"""One connection may take the limit divided by this."""

_CALL_S, _STREAM_S = 20.0, 60.0
"""How long a message may take to come, and a stream may be silent, where many others do already."""


class Room:
    """What requests under way take, together at most `limit_bytes`."""

    def __init__(self, limit_bytes: int, *, refused: ModelFigures) -> None:
        """What is refused counts among `refused`, since nobody has looked whom it is for."""
        self.limit_bytes = limit_bytes
        self.taken_bytes = 0
        self._of: dict[str, int] = {}
        self._refused = refused

    def take(self, size_bytes: int, *, connection: str) -> "Place":
        """A place for a request of this size; Overloaded if there is none."""
        own_bytes = self._of.get(connection, 0) + size_bytes
        if self.taken_bytes + size_bytes > self.limit_bytes:
            why = f"requests under way take {written_bytes(self.taken_bytes)}"
        elif own_bytes > self.limit_bytes // CONNECTIONS_SHARE:
            why = f"those of this connection under way would take {written_bytes(own_bytes)}"
        else:
            return Place(self, size_bytes, connection)
        fault = Overloaded(f"{why}; there is room for {written_bytes(self.limit_bytes)} in all")
        self.refuse(fault)
        raise fault

    def refuse(self, fault: Overloaded) -> None:
        """Counts what found no room."""
        self._refused.codes[code_of(fault)] += 1
        self._refused.refusals[Refusal.MEMORY] += 1

    def change(self, by_bytes: int, connection: str) -> None:
        """For places."""
        self.taken_bytes += by_bytes
        left_bytes = self._of.get(connection, 0) + by_bytes
        if left_bytes:
            self._of[connection] = left_bytes
        else:
            self._of.pop(connection, None)


class Place:
    """What one request takes, from now on until `leave`, or until a `with` block ends."""

    __slots__ = ("_connection", "_room", "_size_bytes")

    def __init__(self, room: Room, size_bytes: int, connection: str) -> None:
        self._room = room
        self._size_bytes = size_bytes
        self._connection = connection
        room.change(size_bytes, connection)

    def answer(self, size_bytes: int) -> None:
        """An answer has been made, which is there whether or not there is room for it."""
        self._size_bytes += size_bytes
        self._room.change(size_bytes, self._connection)

    def leave(self, _: object = None) -> None:
        size_bytes, self._size_bytes = self._size_bytes, 0
        self._room.change(-size_bytes, self._connection)

    def __enter__(self) -> "Place":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()


def doors_of(room: Room) -> Doors:
    """For messages on their way, which may take as much again, and of streams as much again."""
    places = room.limit_bytes // MAX_MESSAGE_BYTES
    return Doors(
        *(
            Receiving(places=places, patience_s=patience_s, on_refusal=room.refuse)
            for patience_s in (_CALL_S, _STREAM_S)
        )
    )

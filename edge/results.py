"""Final answers that came late, kept for whoever asked to be told. No transport, no clock.

A log: each result gets the next sequence number, and readers say after which they want to go on. So
a reader costs nothing but its position, may come back after a broken connection, and misses nothing
as long as the log holds; what a full log dropped before it was read is counted and said. The log
ends with its process: its epoch tells readers that numbers have begun anew.
"""

import asyncio
import uuid
from collections import deque
from dataclasses import dataclass, field

MOST_RESULTS = 4_096
MOST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class LateResult:
    """One final answer: an encoded ModelInferResponse, and whose it is."""

    sequence: int
    request_id: str
    client_id: str
    response: bytes

    @property
    def size_bytes(self) -> int:
        """About: a character of an id may take more than a byte."""
        return len(self.response) + len(self.request_id) + len(self.client_id)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which results a reader is after; by default all."""

    client_id: str = ""
    request_ids: frozenset[str] = frozenset()

    def matches(self, result: LateResult) -> bool:
        if self.client_id and result.client_id != self.client_id:
            return False
        return not self.request_ids or result.request_id in self.request_ids


@dataclass(slots=True)
class Cursor:
    """How far one reader has read, and how much was dropped before it got there."""

    at: int
    dropped: int = 0
    wanted: Wanted = field(default_factory=Wanted)


class ResultLog:
    """Bounded in results and in bytes: the oldest go first. Lives on one event loop."""

    def __init__(
        self, *, most_results: int = MOST_RESULTS, most_bytes: int = MOST_BYTES, epoch: str = ""
    ) -> None:
        self.epoch = epoch or uuid.uuid4().hex
        self.last = 0
        """The sequence number given last; 0 before the first."""
        self.closed = False
        self._most_results = most_results
        self._most_bytes = most_bytes
        self._results: deque[LateResult] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._results)

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def append(self, request_id: str, response: bytes, *, client_id: str = "") -> int:
        """Keeps a result and returns its number; makes room for it if it must."""
        self.last += 1
        result = LateResult(self.last, request_id, client_id, response)
        self._results.append(result)
        self._bytes += result.size_bytes
        while len(self._results) > self._most_results or (
            self._bytes > self._most_bytes and len(self._results) > 1
        ):
            self._bytes -= self._results.popleft().size_bytes
        self._wake()
        return self.last

    def cursor(self, *, epoch: str, after: int, wanted: Wanted | None = None) -> Cursor:
        """A place to read on from: after that number, or, in another epoch, from the oldest kept.

        A number that was never given is one of a reader gone astray: it gets all there is.
        """
        known = epoch == self.epoch and 0 <= after <= self.last
        cursor = Cursor(after if known else self._first - 1, wanted=wanted or Wanted())
        self._skip_dropped(cursor)
        return cursor

    def read(self, cursor: Cursor) -> LateResult | None:
        """The next wanted result, with the cursor moved past it; None when all is read."""
        self._skip_dropped(cursor)
        while cursor.at < self.last:
            result = self._results[cursor.at + 1 - self._first]
            cursor.at = result.sequence
            if cursor.wanted.matches(result):
                return result
        return None

    async def grown(self, cursor: Cursor) -> None:
        """Returns once there is something beyond a cursor, or the log is closed."""
        while cursor.at >= self.last and not self.closed:
            await self._changed.wait()

    def close(self) -> None:
        """Nothing comes any more: lets readers go."""
        self.closed = True
        self._wake()

    def _skip_dropped(self, cursor: Cursor) -> None:
        gone = self._first - 1
        if cursor.at < gone:
            cursor.dropped += gone - cursor.at
            cursor.at = gone

    @property
    def _first(self) -> int:
        return self.last + 1 - len(self._results)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

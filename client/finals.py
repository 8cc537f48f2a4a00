"""Final answers that come after provisional ones, each handed out once.

for final in client.finals: ...             in a thread of its own: each as it comes, without end
final = client.finals.wait(answer)          the one that follows this answer
for final in client.finals.rest(): ...      those that are still to come, then on
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import grpc
from google.protobuf.message import DecodeError

from ..protos import fleet_pb2
from ..protos import open_inference_pb2 as pb
from ..shared.errors import (
    RemoteError,
    RemoteRefused,
    RemoteTooLate,
    RemoteUnavailable,
    RequestError,
    from_rpc,
)
from .answer import Answer, read_answer
from .mailbox import UNREADABLE, Mailbox

log = logging.getLogger(__name__)

_PATIENCE_MS = 5_000.0
"""How much longer than the edge says a final answer is waited for: its way may be broken."""
_PAUSES_S = (0.1, 1.0)
"""Between attempts to reach the edge again: the first, and the longest; each doubles the last."""
_HOPELESS = frozenset(
    {
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)
"""What asking again will not change."""


class Stream(Protocol):
    """A call whose messages are read by one thread and which another may end."""

    def __iter__(self) -> Iterator[fleet_pb2.LateResult]: ...

    def cancel(self) -> bool: ...


class Finals:
    """The final answers to one client's requests. Thread-safe.

    Reads from the edge in the background, from the first request that is followed until the client
    is closed, also across broken connections. Each final answer is handed out once: to whoever
    waits for it by name, else to whoever iterates. One that nobody has fetched waits for a while:
    the newest thousand are kept, and `dropped` counts the others.
    """

    def __init__(
        self, watch: Callable[[fleet_pb2.WatchResultsRequest], Stream], *, client_id: str
    ) -> None:
        self._watch = watch
        self._client_id = client_id
        self._mailbox = Mailbox()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._reader: threading.Thread | None = None
        self._stream: Stream | None = None
        self._fault: RemoteError | None = None

    def __iter__(self) -> Iterator[Answer]:
        """Each as it comes, until the client is closed."""
        self._start()
        while True:
            with self._changed:
                self._changed.wait_for(self._something_or_over)
                final = self._mailbox.take_next()
                if final is None:
                    if self._fault is not None:
                        raise self._fault
                    return
            yield final

    @property
    def dropped(self) -> int:
        """How many were lost because nobody fetched them: here, or from the edge's log.

        An edge does not know whose it dropped: of those, they are at most so many.
        """
        with self._changed:
            return self._mailbox.dropped

    @property
    def outstanding(self) -> int:
        """How many are still to come."""
        with self._changed:
            return self._mailbox.outstanding

    def wait(self, answer: Answer, *, timeout_ms: float | None = None) -> Answer:
        """The final answer that follows this one; the answer itself if none does.

        If the cloud gave none, that is the provisional one again, `final`, and its `fallback` says
        why. RemoteTooLate if nothing was heard within the timeout, by default five seconds more
        than the edge takes; what comes later can still be had. RequestError if it was handed out
        before, or if the request was not to be followed by this client.
        """
        if not answer.final_follows:
            return answer
        request_id = answer.request_id
        if timeout_ms is None:
            timeout_ms = answer.follow_ms + _PATIENCE_MS
        mailbox = self._mailbox
        with self._changed:
            if not (mailbox.expects(request_id) or mailbox.holds(request_id)):
                raise RequestError(
                    f"no final answer to {request_id!r} is to come: it was handed out already, "
                    "or the request is another client's"
                )
            mailbox.claim(request_id)
            try:
                self._changed.wait_for(
                    lambda: not mailbox.expects(request_id) or self._over, timeout_ms / 1e3
                )
                final = mailbox.take(request_id)
            finally:
                mailbox.release(request_id)
                self._changed.notify_all()
            if final is None:
                self._raise_if_over()
                raise RemoteTooLate(f"no final answer to {request_id!r} within {timeout_ms:g} ms")
            return final

    def rest(self, *, timeout_ms: float | None = None) -> Iterator[Answer]:
        """Those that are here or still to come, as they come, and then the end.

        RemoteTooLate once nothing was heard for so long: by default five seconds more than the
        edge takes.
        """
        while True:
            with self._changed:
                patience_ms = timeout_ms
                if patience_ms is None:
                    patience_ms = self._mailbox.longest_ms + _PATIENCE_MS
                self._changed.wait_for(
                    lambda: self._something_or_over() or not self._mailbox.outstanding,
                    patience_ms / 1e3,
                )
                final = self._mailbox.take_next()
                left = self._mailbox.outstanding
                if final is None:
                    if left:
                        self._raise_if_over()
                        raise RemoteTooLate(
                            f"{left} final answers did not come within {patience_ms:g} ms"
                        )
                    return
            yield final

    def ask(self, request_id: str) -> None:
        """A request that is to be followed is about to be sent."""
        self._start()
        with self._changed:
            self._mailbox.ask(request_id, now_s=time.monotonic())

    def withdraw(self, request_id: str) -> None:
        """It failed."""
        with self._changed:
            self._mailbox.withdraw(request_id)
            self._changed.notify_all()

    def answered(self, answer: Answer) -> None:
        """It was answered."""
        with self._changed:
            self._mailbox.answered(answer)
            if answer.results_epoch != self._mailbox.epoch:
                self._resolve_doubts()
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the reading, and every wait."""
        with self._changed:
            self._closed.set()
            if self._stream is not None:
                self._stream.cancel()
            self._changed.notify_all()
        if self._reader is not None:
            self._reader.join()

    @property
    def _over(self) -> bool:
        return self._closed.is_set() or self._fault is not None

    def _something_or_over(self) -> bool:
        return self._mailbox.has_next or self._over

    def _raise_if_over(self) -> None:
        if self._fault is not None:
            raise self._fault
        if self._closed.is_set():
            raise RemoteUnavailable("this client is closed")

    def _start(self) -> None:
        with self._changed:
            if self._reader is None and not self._closed.is_set():
                self._reader = threading.Thread(target=self._read, name="finals", daemon=True)
                self._reader.start()

    def _read(self) -> None:
        """Reads for as long as there is a client, from where it stopped."""
        pause_s = _PAUSES_S[0]
        while (stream := self._open()) is not None:
            try:
                for message in stream:
                    self._take(message)
                    pause_s = _PAUSES_S[0]
            except grpc.RpcError as error:
                if error.code() in _HOPELESS:
                    self._fail(from_rpc(error))
                    return
                log.debug("the edge's final answers stopped coming: %s", from_rpc(error))
            self._closed.wait(pause_s)
            pause_s = min(2 * pause_s, _PAUSES_S[1])

    def _open(self) -> Stream | None:
        with self._changed:
            if self._closed.is_set():
                return None
            self._mailbox.opening()
            self._stream = self._watch(
                fleet_pb2.WatchResultsRequest(
                    epoch=self._mailbox.epoch,
                    after=self._mailbox.sequence,
                    client_id=self._client_id,
                )
            )
            return self._stream

    def _take(self, message: fleet_pb2.LateResult) -> None:
        final = _read_final(message) if message.request_id else None
        with self._changed:
            if final is None or message.epoch != self._mailbox.epoch:
                self._mailbox.opened(message.epoch)
                self._resolve_doubts()
            if message.dropped:
                self._mailbox.dropped += message.dropped
                log.warning("the edge dropped %d final answers unread", message.dropped)
            if final is not None:
                self._mailbox.deliver(final, now_s=time.monotonic())
            elif message.request_id:
                self._mailbox.lose(message.request_id, UNREADABLE)
            self._mailbox.sequence = message.sequence
            self._changed.notify_all()

    def _resolve_doubts(self) -> None:
        """Ends a stream whose edge is not the one that answered: the next one's is."""
        if self._stream is not None and self._mailbox.doubtful:
            self._stream.cancel()

    def _fail(self, fault: RemoteError) -> None:
        with self._changed:
            self._fault = fault
            self._changed.notify_all()


def _read_final(message: fleet_pb2.LateResult) -> Answer | None:
    try:
        response = pb.ModelInferResponse.FromString(message.response)
        answer = read_answer(response, round_trip_ms=0.0)
    except (DecodeError, RemoteRefused) as error:
        log.warning("the final answer to %r cannot be read: %s", message.request_id, error)
        return None
    return answer

"""Final answers across threads, broken streams and restarts: a scripted edge on a real port."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import grpc
import numpy as np
import pytest

from hybridge.client import Answer, Client
from hybridge.client import finals as finals_module
from hybridge.client.mailbox import RESTARTED, UNREADABLE
from hybridge.protos import fleet_pb2, fleet_pb2_grpc, oip
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip as messages
from hybridge.shared.daemon import OnListening
from hybridge.shared.errors import RemoteRefused, RemoteTooLate, RemoteUnavailable, RequestError
from hybridge.shared.security import Address, Security

from ..bundles import NAME, picture
from ..threads import serving

HERE = Address("127.0.0.1", 0)
WAIT_MS = 20_000.0


def response(request_id: str, **parameters: messages.Value) -> pb.ModelInferResponse:
    made = pb.ModelInferResponse(id=request_id)
    messages.add_output(made, "probabilities", np.array([[0.1, 0.9]], np.float32))
    messages.add_bytes_output(made, "labels", [b"cat"], shape=[1, 1])
    messages.set_parameters(made.parameters, parameters)
    return made


class ScriptedEdge(oip.Servicer, fleet_pb2_grpc.EdgeServicer):
    """Answers at once that a final answer will follow, and streams what the test tells it to."""

    def __init__(self) -> None:
        self.epoch = "A"
        self.follows = self.takes = True
        self.answers_once_watched = False
        self.address = HERE
        self.requests: list[pb.ModelInferRequest] = []
        self.watches: list[fleet_pb2.WatchResultsRequest] = []
        self._streams: asyncio.Queue[list[fleet_pb2.LateResult | grpc.StatusCode]] | None = None
        self._asked, self._ended = threading.Semaphore(0), threading.Semaphore(0)

    async def startup(self, *, on_listening: OnListening | None = None) -> None:
        self._streams = asyncio.Queue()
        self._watched = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._server = grpc.aio.server()
        oip.add_servicer(self._server, self)
        fleet_pb2_grpc.add_EdgeServicer_to_server(self, self._server)
        self.address = Security().bind(self._server, self.address)
        await self._server.start()
        assert on_listening is not None
        on_listening(self.address)

    async def shutdown(self) -> None:
        await self._server.stop(None)

    def stream(self, *steps: fleet_pb2.LateResult | grpc.StatusCode) -> None:
        """What the next stream, or the one that waits, sends; a status ends it."""
        assert self._streams is not None
        asyncio.run_coroutine_threadsafe(self._streams.put(list(steps)), self._loop).result(20)

    def await_asked(self) -> None:
        """Returns once one more stream was asked for."""
        assert self._asked.acquire(timeout=60)

    def await_ended(self) -> None:
        """Returns once one more stream has ended: it takes no steps from the next any more."""
        assert self._ended.acquire(timeout=60)

    def opened(self) -> fleet_pb2.LateResult:
        return fleet_pb2.LateResult(epoch=self.epoch)

    def result(self, sequence: int, name: str, **fields: object) -> fleet_pb2.LateResult:
        final = response(name, plan="cloud:raw", final=True)
        message = fleet_pb2.LateResult(
            epoch=self.epoch, sequence=sequence, request_id=name,
            response=final.SerializeToString(),
        )  # fmt: skip
        for field, value in fields.items():
            setattr(message, field, value)
        return message

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: oip.Context
    ) -> pb.ModelInferResponse:
        self.requests.append(request)
        if self.answers_once_watched:
            await self._watched.wait()
        if not self.takes:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        if not self.follows:
            return response(request.id, plan="cloud:raw")
        return response(
            request.id, plan="local", provisional=True, fallback="cloud late",
            results_epoch=self.epoch, follow_ms=1_000.0,
        )  # fmt: skip

    async def WatchResults(
        self, request: fleet_pb2.WatchResultsRequest, context: oip.Context
    ) -> AsyncIterator[fleet_pb2.LateResult]:
        self.watches.append(request)
        self._watched.set()
        self._asked.release()
        assert self._streams is not None
        try:
            for step in await self._streams.get():
                if not isinstance(step, fleet_pb2.LateResult):
                    await context.abort(step, "as the test says")
                else:
                    yield step
            await asyncio.Event().wait()  # until the client leaves
        finally:
            self._ended.release()

    async def WatchAgent(
        self, request: fleet_pb2.WatchAgentRequest, context: oip.Context
    ) -> AsyncIterator[fleet_pb2.AgentState]:
        yield fleet_pb2.AgentState(epoch=self.epoch)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finals_module, "_PAUSES_S", (0.01, 0.02))


@pytest.fixture
def edge() -> Iterator[ScriptedEdge]:
    edge = ScriptedEdge()
    with serving(edge):
        yield edge


@pytest.fixture
def client(edge: ScriptedEdge) -> Iterator[Client]:
    with Client(str(edge.address), client_id="me") as client:
        yield client


def ask(client: Client, name: str) -> Answer:
    return client.infer(picture(0), model=NAME, request_id=name, follow=True)


def test_now_and_later(edge: ScriptedEdge, client: Client) -> None:
    answer = ask(client, "one")
    assert (answer.provisional, answer.final_follows, answer.final) == (True, True, False)
    assert client.finals.outstanding == 1
    edge.stream(edge.opened(), edge.result(1, "one"))
    final = client.finals.wait(answer, timeout_ms=WAIT_MS)
    assert (final.request_id, final.plan, final.final, final.fallback) == (
        "one", "cloud:raw", True, ""
    )  # fmt: skip
    assert final.round_trip_ms > answer.round_trip_ms
    assert not final.final_follows
    assert client.finals.outstanding == 0
    with pytest.raises(RequestError, match="no final answer to 'one' is to come"):
        client.finals.wait(answer)


def test_what_the_edge_is_asked(
    edge: ScriptedEdge, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.follows = False
    monkeypatch.setattr("hybridge.client.client.tell", lambda now_s: "boot:5.0")
    answer = ask(client, "one")
    assert client.finals.wait(answer) is answer  # none follows: it is the last word
    assert list(client.finals.rest()) == []
    client.infer(picture(0), model=NAME, request_id="two")
    monkeypatch.setattr("hybridge.client.client.tell", lambda now_s: "")  # an unnamed boot
    client.infer(picture(0), model=NAME, request_id="three")
    edge.stream(edge.opened())
    said = [messages.get_parameters(request.parameters) for request in edge.requests]
    at = {"sent_at": "boot:5.0"}
    assert said == [{"follow": True, "client_id": "me"} | at, at, {}]


def test_a_stream_that_breaks_goes_on_where_it_was(edge: ScriptedEdge, client: Client) -> None:
    for name in ("one", "two", "three"):
        ask(client, name)
    edge.stream(edge.opened(), edge.result(4, "one"), grpc.StatusCode.UNAVAILABLE)
    edge.stream(edge.opened(), edge.result(5, "two"), grpc.StatusCode.RESOURCE_EXHAUSTED)
    edge.stream(edge.result(5, "two"), edge.result(6, "one"), edge.result(7, "three"))
    finals = [final.request_id for final in client.finals.rest(timeout_ms=WAIT_MS)]
    assert finals == ["one", "two", "three"]
    assert [(watch.epoch, watch.after, watch.client_id) for watch in edge.watches] == [
        ("", 0, "me"), ("A", 4, "me"), ("A", 5, "me")
    ]  # fmt: skip


def test_each_goes_to_one_of_many_threads(edge: ScriptedEdge, client: Client) -> None:
    names = [str(number) for number in range(40)]
    answers = [ask(client, name) for name in names]
    named, others = answers[:5], names[5:]
    waited: list[str] = []
    iterated: list[str] = []
    waiters = [
        threading.Thread(
            target=lambda answer=answer: waited.append(
                client.finals.wait(answer, timeout_ms=WAIT_MS).request_id
            )
        )
        for answer in named
    ]
    for thread in waiters:
        thread.start()
    while len(client.finals._mailbox._claims) < len(named):
        waiters[0].join(0.01)
    takers = [
        threading.Thread(
            target=lambda: iterated.extend(
                final.request_id for final in client.finals.rest(timeout_ms=WAIT_MS)
            )
        )
        for _ in range(3)
    ]
    for thread in takers:
        thread.start()
    edge.stream(edge.opened(), *(edge.result(at + 1, name) for at, name in enumerate(names)))
    for thread in (*waiters, *takers):
        thread.join(20)
    assert sorted(waited) == sorted(answer.request_id for answer in named)
    assert sorted(iterated) == sorted(others)


def test_iterating_ends_with_the_client(edge: ScriptedEdge) -> None:
    found: list[str] = []
    first = threading.Event()

    def iterate() -> None:
        for final in client.finals:
            found.append(final.request_id)
            first.set()

    with Client(str(edge.address)) as client:
        thread = threading.Thread(target=iterate)
        thread.start()
        edge.stream(edge.opened(), edge.result(1, "asked before this app was started"))
        assert first.wait(20)
    thread.join(20)
    assert not thread.is_alive()
    assert found == ["asked before this app was started"]


def test_a_restarted_edge(edge: ScriptedEdge, client: Client) -> None:
    before = ask(client, "before")
    edge.stream(edge.opened(), grpc.StatusCode.UNAVAILABLE)
    for _ in range(2):  # the first has told of A, and no other will
        edge.await_asked()
    edge.epoch = "B"
    after = ask(client, "after")
    for _ in range(2):  # the client has left what knows nothing of B
        edge.await_ended()
    edge.stream(edge.opened(), edge.result(1, "after"))
    lost = client.finals.wait(before, timeout_ms=WAIT_MS)
    assert (lost.label, lost.plan, lost.final, lost.fallback) == ("cat", "local", True, RESTARTED)
    assert client.finals.wait(after, timeout_ms=WAIT_MS).plan == "cloud:raw"


def test_an_edge_restarted_before_it_was_ever_watched(edge: ScriptedEdge, client: Client) -> None:
    edge.answers_once_watched = True
    before = ask(client, "before")
    edge.epoch = "B"
    after = ask(client, "after")
    edge.stream(edge.opened())  # begun before anything was answered: it says nothing of either
    edge.await_ended()
    edge.stream(edge.opened(), edge.result(1, "after"))
    assert client.finals.wait(before, timeout_ms=WAIT_MS).fallback == RESTARTED
    assert client.finals.wait(after, timeout_ms=WAIT_MS).plan == "cloud:raw"


def test_nothing_is_heard(edge: ScriptedEdge, client: Client) -> None:
    answer = ask(client, "one")
    with pytest.raises(RemoteTooLate, match="no final answer to 'one' within 20 ms"):
        client.finals.wait(answer, timeout_ms=20)
    with pytest.raises(RemoteTooLate, match="1 final answers did not come within 20 ms"):
        list(client.finals.rest(timeout_ms=20))
    edge.stream(edge.opened(), edge.result(1, "one"))
    assert client.finals.wait(answer, timeout_ms=WAIT_MS).final  # later is not lost


def test_a_final_answer_that_cannot_be_read(edge: ScriptedEdge, client: Client) -> None:
    one, two = ask(client, "one"), ask(client, "two")
    edge.stream(
        edge.opened(),
        edge.result(1, "one", response=b"\xff\xff"),
        edge.result(2, "two", response=pb.ModelInferResponse().SerializeToString()),
    )
    for answer in (one, two):
        assert client.finals.wait(answer, timeout_ms=WAIT_MS).fallback == UNREADABLE


def test_what_the_edge_dropped_is_told(edge: ScriptedEdge, client: Client) -> None:
    answer = ask(client, "one")
    edge.stream(edge.opened(), edge.result(9, "one", dropped=8))
    client.finals.wait(answer, timeout_ms=WAIT_MS)
    assert client.finals.dropped == 8


@pytest.mark.parametrize("code", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT])
def test_an_edge_that_has_no_such_stream(
    edge: ScriptedEdge, client: Client, code: grpc.StatusCode
) -> None:
    answer = ask(client, "one")
    edge.stream(code)
    with pytest.raises(RemoteRefused, match=code.name):
        client.finals.wait(answer, timeout_ms=WAIT_MS)
    with pytest.raises(RemoteRefused, match=code.name):
        next(iter(client.finals))


def test_a_request_that_fails_waits_for_nothing(edge: ScriptedEdge, client: Client) -> None:
    edge.takes = False
    with pytest.raises(RemoteRefused, match="full"):
        ask(client, "one")
    assert not client.finals._mailbox.expects("one")
    assert list(client.finals.rest()) == []


def test_closing_ends_every_wait(edge: ScriptedEdge) -> None:
    faults: list[Exception] = []

    def wait(answer: Answer) -> None:
        try:
            client.finals.wait(answer, timeout_ms=WAIT_MS)
        except RemoteUnavailable as error:
            faults.append(error)

    with Client(str(edge.address)) as client:
        thread = threading.Thread(target=wait, args=(ask(client, "one"),))
        thread.start()
        while not client.finals._mailbox._claims:
            thread.join(0.01)
    thread.join(20)
    assert len(faults) == 1
    client.close()  # twice is once

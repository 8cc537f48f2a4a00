"""Faults become statuses, and a defect of ours tells nobody its stack trace."""

import gc
import json
import logging
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import grpc
import pytest

from hybridge.protos import fleet_pb2, fleet_pb2_grpc, oip
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import rpc
from hybridge.shared.errors import MEANINGS, HybridgeError, InstanceLost
from hybridge.shared.receiving import Receiving
from hybridge.shared.rpc import guarded
from hybridge.shared.security import Address, Security

Code = grpc.StatusCode


class Failing(oip.Servicer, fleet_pb2_grpc.EdgeServicer):
    def __init__(self) -> None:
        self.error: Exception = HybridgeError()
        self.asked = 0

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: oip.Context
    ) -> pb.ServerLiveResponse:
        self.asked += 1
        raise self.error

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: oip.Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        async for _ in requests:
            yield pb.ModelStreamInferResponse()
            raise self.error

    async def WatchResults(
        self, request: fleet_pb2.WatchResultsRequest, context: oip.Context
    ) -> AsyncIterator[fleet_pb2.LateResult]:
        yield fleet_pb2.LateResult(request_id=request.client_id)
        raise self.error

    async def WatchAgent(
        self, request: fleet_pb2.WatchAgentRequest, context: oip.Context
    ) -> AsyncIterator[fleet_pb2.AgentState]:
        await context.abort(Code.ABORTED, "in its own words")
        yield fleet_pb2.AgentState()


@pytest.fixture(params=["open", "crowded"], autouse=True)
def doors(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways in which a message is received."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "crowded":
            none = Receiving(places=0, patience_s=60.0)
            patch.setattr(rpc, "open_doors", lambda: rpc.Doors(none, none))
        yield


@asynccontextmanager
async def serving(
    servicer: oip.Servicer, *options: tuple[str, str | int]
) -> AsyncIterator[oip.Stub]:
    server = grpc.aio.server()
    oip.add_servicer(guarded(server), servicer)
    address = Security().bind(server, Address("127.0.0.1", 0))
    await server.start()
    try:
        async with grpc.aio.insecure_channel(str(address), options=options) as channel:
            yield oip.Stub(channel)
    finally:
        await server.stop(None)


async def status_of(stub: oip.Stub) -> tuple[Code, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ServerLive(pb.ServerLiveRequest(), timeout=20)
    return caught.value.code(), caught.value.details() or ""


async def test_every_fault_has_its_status() -> None:
    servicer = Failing()
    async with serving(servicer) as stub:
        for kind, line in MEANINGS.items():
            servicer.error = kind("the reason")
            assert await status_of(stub) == (line.grpc_status, f"{line.text}: the reason")


class _Held:
    """What a call had in its hands."""


class _Holding(Failing):
    """Fails like the other, and remembers what was in the frames of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[weakref.ref[_Held]] = []

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: oip.Context
    ) -> pb.ServerLiveResponse:
        held = _Held()
        self.held.append(weakref.ref(held))
        raise HybridgeError("the reason")

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: oip.Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        held = _Held()
        self.held.append(weakref.ref(held))
        async for _ in requests:
            yield pb.ModelStreamInferResponse()
            raise HybridgeError("the reason")


async def test_a_failed_call_keeps_nothing() -> None:
    servicer = _Holding()
    async with serving(servicer) as stub:
        await status_of(stub)
        gc.disable()
        try:
            for _ in range(5):
                await status_of(stub)
                streamed = stub.ModelStreamInfer(iter([pb.ModelInferRequest()]), timeout=20)
                await streamed.read()
                assert await streamed.code() is Code.INTERNAL
            await stub.ServerReady(pb.ServerReadyRequest()).code()  # the last has ended by then
            assert [ref() for ref in servicer.held] == [None] * 11
        finally:
            gc.enable()


async def test_a_client_that_tries_again_may() -> None:
    policy = {
        "maxAttempts": 3,
        "initialBackoff": "0.01s",
        "maxBackoff": "0.01s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    told = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})
    servicer = Failing()
    servicer.error = InstanceLost("for a moment")
    async with serving(servicer, ("grpc.service_config", told)) as stub:
        assert await status_of(stub) == (Code.UNAVAILABLE, "computing was cut short: for a moment")
    assert servicer.asked == 3


async def test_a_defect_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    servicer = Failing()
    servicer.error = ZeroDivisionError("secret path /home/somebody")
    async with serving(servicer) as stub:
        with caplog.at_level(logging.ERROR):
            assert await status_of(stub) == (Code.INTERNAL, "internal error")
    assert "secret path" in caplog.text
    assert "defect in /inference.GRPCInferenceService/ServerLive" in caplog.text


async def test_a_long_message_where_nothing_is_carried_is_not_read() -> None:
    async with serving(Failing()) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelMetadata(pb.ModelMetadataRequest(name="m" * 70_000), timeout=20)
        assert caught.value.code() is Code.INVALID_ARGUMENT
        assert "in a call without tensors, at most 65536 are read" in str(caught.value.details())


async def test_a_stream_ends_with_the_faults_status() -> None:
    servicer = Failing()
    servicer.error = next(iter(MEANINGS))("the reason")
    async with serving(servicer) as stub:
        call = stub.ModelStreamInfer(iter([pb.ModelInferRequest()]))
        assert await call.read() == pb.ModelStreamInferResponse()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.details() == "internal error: the reason"


@asynccontextmanager
async def watched(servicer: Failing) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    fleet_pb2_grpc.add_EdgeServicer_to_server(servicer, guarded(server))
    address = Security().bind(server, Address("127.0.0.1", 0))
    await server.start()
    try:
        async with Security().channel(address) as channel:
            yield channel
    finally:
        await server.stop(None)


async def test_what_is_watched_ends_with_the_faults_status() -> None:
    servicer = Failing()
    servicer.error = next(iter(MEANINGS))("the reason")
    async with watched(servicer) as channel:
        stub = fleet_pb2_grpc.EdgeStub(channel)
        call = stub.WatchResults(fleet_pb2.WatchResultsRequest(client_id="me"))
        assert await call.read() == fleet_pb2.LateResult(request_id="me")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.details() == "internal error: the reason"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.WatchAgent(fleet_pb2.WatchAgentRequest()).read()
        assert (caught.value.code(), caught.value.details()) == (Code.ABORTED, "in its own words")


async def test_random_bytes_to_what_is_watched() -> None:
    async with watched(Failing()) as channel:
        call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
            "/hybridge.fleet.v1.Edge/WatchResults"
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"\xff" * 100).read()
        assert caught.value.code() is Code.INVALID_ARGUMENT


async def test_what_is_not_served() -> None:
    async with serving(oip.Servicer()) as stub:
        assert (await status_of(stub))[0] is Code.UNIMPLEMENTED

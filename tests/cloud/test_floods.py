"""What strangers send: each gets its status or nothing, and the others never notice."""

import asyncio
import dataclasses
import random
import struct

import grpc
import pytest

from hybridge.cloud.backend import Backend, Result
from hybridge.cloud.config import CloudConfig
from hybridge.protos import open_inference_pb2 as pb
from hybridge.protos.oip import MODEL_INFER
from hybridge.shared.side import Tensors
from hybridge.shared.tensor import Array

from .bundles import random_pixels
from .conftest import Cloud, run_cloud
from .test_bad_input import check_refused, check_serves, gated, inference_of, whole_stage
from .test_service import request_of

Code = grpc.StatusCode

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, DATA, RESET, SETTINGS, GOAWAY = 0x1, 0x0, 0x3, 0x4, 0x7
END_STREAM, END_HEADERS = 0x1, 0x4


def http2_frame(kind: int, payload: bytes, *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + stream.to_bytes(4) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """An HPACK field without indexing or Huffman coding (RFC 7541, 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def grpc_call(path: str, *, stream: int = 1) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    block = b"".join(literal(name.encode(), value.encode()) for name, value in fields.items())
    return http2_frame(HEADERS, block, flags=END_HEADERS, stream=stream)


async def ended_by_server(reader: asyncio.StreamReader) -> bool:
    """Reads frames until the first stream, or the connection, has been ended from there."""
    while True:
        try:
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3]))
        except (EOFError, ConnectionError):
            return True
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:9])
        if kind == GOAWAY or (stream == 1 and (kind == RESET or flags & END_STREAM)):
            return True


async def connect(cloud: Cloud) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(cloud.address.host, cloud.address.port)


async def test_random_bytes_on_the_port(cloud: Cloud) -> None:
    rng = random.Random(3)
    for size in (1, 24, 4096, 100_000):
        _, writer = await connect(cloud)
        writer.write(rng.randbytes(size))
        await check_serves(cloud)
        writer.close()


async def test_clients_that_begin_and_do_not_go_on(cloud: Cloud) -> None:
    begun = [b"", PREFACE, PREFACE + http2_frame(SETTINGS, b"") + grpc_call(MODEL_INFER.path)]
    connections = []
    for start in begun:
        for _ in range(5):
            connections.append(await connect(cloud))
            connections[-1][1].write(start)
    await check_serves(cloud)
    for _, writer in connections:
        writer.transport.abort()
    await check_serves(cloud)


async def test_two_gigabytes_are_refused_before_they_are_sent(cloud: Cloud) -> None:
    reader, writer = await connect(cloud)
    announced = b"\x00" + struct.pack(">I", 2 << 30)
    writer.write(PREFACE + http2_frame(SETTINGS, b"") + grpc_call(MODEL_INFER.path))
    writer.write(http2_frame(DATA, announced + bytes(1000), stream=1))
    assert await asyncio.wait_for(ended_by_server(reader), 60)
    writer.close()
    await check_serves(cloud)


async def test_messages_that_are_cut_off(cloud: Cloud) -> None:
    message = request_of("pixels", random_pixels(0)).SerializeToString()
    send: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    send = cloud.channel.unary_unary(MODEL_INFER.path)
    for size in (0, 1, 7, 20, len(message) // 2, len(message) - 1):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(message[:size], timeout=60)
        assert caught.value.code() in (Code.INVALID_ARGUMENT, Code.NOT_FOUND)
    await check_serves(cloud)


async def test_a_flood_of_deadlines_that_cannot_be_met_computes_nothing(cloud: Cloud) -> None:
    figures = inference_of(cloud).statistics.of("tiny", "1")
    request = request_of("pixels", random_pixels(0), latency_budget_ms=1e-3)
    calls = [cloud.stub.ModelInfer(request, timeout=60) for _ in range(200)]
    assert {await call.code() for call in calls} == {Code.DEADLINE_EXCEEDED}
    assert not figures.batches
    await check_serves(cloud)


async def test_many_tiny_requests_leave_nothing_behind(cloud: Cloud) -> None:
    send: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    send = cloud.channel.unary_unary(MODEL_INFER.path)
    nobody = pb.ModelInferRequest(model_name="nobody")
    figures = inference_of(cloud).statistics
    models = [key for *key, _ in figures]
    for round_ in range(10):
        tiny = [b"", b"\x0a", *(nobody.SerializeToString() + b"\x1a\x02%02d" % round_,) * 98]
        codes = [await call.code() for call in [send(each, timeout=60) for each in tiny]]
        assert codes == [Code.NOT_FOUND, Code.INVALID_ARGUMENT, *[Code.NOT_FOUND] * 98]
    assert figures.unknown.codes == {"NOT_FOUND": 990, "INVALID_ARGUMENT": 10}
    assert figures.unknown.refusals == {"not_served": 990, "bad_request": 10}
    assert figures.in_flight == 0
    assert [key for *key, _ in figures] == models
    await check_serves(cloud)
    await cloud.stub.ServerLive(pb.ServerLiveRequest())  # all that was answered has ended by then
    assert cloud.server._front is not None
    assert cloud.server._front.room.taken_bytes == 0


@pytest.mark.parametrize(
    "shape", [(-1, 16, 16, 3), (1 << 62, 16, 16, 3), (0, 16, 16, 3), (1,) * 70, (1 << 63 - 1,) * 60]
)
async def test_senseless_shapes(cloud: Cloud, shape: tuple[int, ...]) -> None:
    request = request_of("pixels", random_pixels(0))
    request.inputs[0].shape[:] = shape
    await check_refused(cloud, request, Code.INVALID_ARGUMENT, "bad tensor")


class Broken(Backend):
    device = "cpu"

    def run(self, batch: Array, sides: Tensors) -> Result:
        raise MemoryError("of its own")


async def test_a_model_that_raises(cloud: Cloud) -> None:
    stage = whole_stage(cloud)
    good, stage._backend = stage._backend, Broken()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.stub.ModelInfer(request_of("pixels", random_pixels(0)), timeout=60)
    assert caught.value.code() is Code.INTERNAL
    assert "Traceback" not in str(caught.value.details())
    stage._backend = good
    await check_refused(cloud, request_of("frame", random_pixels(0).ravel()), Code.INVALID_ARGUMENT)


async def test_whoever_leaves_frees_the_place_of_their_request(config: CloudConfig) -> None:
    small = dataclasses.replace(config, instances=1, queue_limit=2)
    async with run_cloud(small) as cloud, gated(whole_stage(cloud)) as gate:
        request = request_of("pixels", random_pixels(0))
        first = cloud.stub.ModelInfer(request, timeout=60)
        assert await asyncio.to_thread(gate.entered.acquire, timeout=30)
        worker = inference_of(cloud).worker
        for _ in range(5):
            leaving = [cloud.stub.ModelInfer(request, timeout=60) for _ in range(2)]
            while worker.queued("tiny") < 2:
                await cloud.stub.ServerLive(pb.ServerLiveRequest())
            for call in leaving:
                call.cancel()
            while worker.queued("tiny"):
                await cloud.stub.ServerLive(pb.ServerLiveRequest())
        gate.allowed.set()
        assert await first.code() is Code.OK
        await check_serves(cloud)

"""Who is slow to send, or connects and connects: memory is bounded, and the others are served."""

import asyncio
import contextlib
import dataclasses
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hybridge.cloud import room as room_module
from hybridge.cloud import server as server_module
from hybridge.cloud.config import CloudConfig
from hybridge.cloud.room import Room, doors_of
from hybridge.cloud.statistics import Refusal
from hybridge.protos.oip import MODEL_INFER, MODEL_STREAM_INFER
from hybridge.shared.errors import ConfigError
from hybridge.shared.rpc import Doors
from hybridge.shared.security import MAX_MESSAGE_BYTES

from .bundles import random_pixels
from .conftest import Cloud, run_cloud
from .test_bad_input import check_serves, inference_of
from .test_floods import (
    DATA,
    GOAWAY,
    PREFACE,
    SETTINGS,
    connect,
    ended_by_server,
    grpc_call,
    http2_frame,
)
from .test_room import until
from .test_service import request_of

PLACES = 2
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def crowded(
    config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Cloud, Doors]]:
    """A cloud with few places for messages that take long."""
    made = list[Doors]()

    def few(room: Room) -> Doors:
        room.limit_bytes, limit_bytes = PLACES * MAX_MESSAGE_BYTES, room.limit_bytes
        made.append(doors_of(room))
        room.limit_bytes = limit_bytes
        return made[0]

    monkeypatch.setattr(server_module, "doors_of", few)
    monkeypatch.setattr(room_module, "_CALL_S", 60.0)
    monkeypatch.setattr(room_module, "_STREAM_S", 60.0)
    async with run_cloud(config) as cloud:
        yield cloud, made[0]


async def slow(cloud: Cloud, path: str) -> Connection:
    """A call that announces 40 MB and sends one."""
    reader, writer = await connect(cloud)
    writer.write(PREFACE + http2_frame(SETTINGS, b"") + grpc_call(path))
    announced = b"\0" + struct.pack(">I", 40_000_000)
    writer.write(http2_frame(DATA, announced + bytes(1000), stream=1))
    return reader, writer


@pytest.mark.parametrize("path", [MODEL_INFER.path, MODEL_STREAM_INFER.path])
async def test_beyond_the_places_slow_senders_are_let_go_and_the_others_served(
    config: CloudConfig, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    async with crowded(config, monkeypatch) as (cloud, doors):
        door = doors.calls if path == MODEL_INFER.path else doors.streams
        staying = [await slow(cloud, path) for _ in range(PLACES)]
        async with asyncio.timeout(60):
            # Nobody tells, and whoever asked the cloud might take one of the places.
            while len(door._coming) < PLACES:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        for each in doors:
            each._patience_s = 0.01
        late = [await slow(cloud, path) for _ in range(3)]
        for reader, _ in late:
            assert await asyncio.wait_for(ended_by_server(reader), 60)
        unknown = inference_of(cloud).statistics.unknown
        assert unknown.refusals == {Refusal.MEMORY: 3}
        assert unknown.codes == {"RESOURCE_EXHAUSTED": 3}
        assert len(door._coming) == PLACES  # who came first may take long
        for each in doors:
            each._patience_s = 60.0
        await check_serves(cloud)
        stream = cloud.stub.ModelStreamInfer()
        await stream.write(request_of("pixels", random_pixels(0)))
        assert not (await stream.read()).error_message
        await stream.done_writing()
        health = health_pb2_grpc.HealthStub(cloud.channel)
        async for state in health.Watch(health_pb2.HealthCheckRequest()):
            assert state.status == health_pb2.HealthCheckResponse.SERVING
            break
        for _, writer in (*staying, *late):
            writer.transport.abort()
        await until(cloud, lambda: not any(each._coming for each in doors))


async def is_served(connection: Connection) -> bool:
    """Whether the server says anything to who connects."""
    reader, writer = connection
    writer.write(PREFACE + http2_frame(SETTINGS, b""))
    with contextlib.suppress(EOFError, ConnectionError):
        head = await asyncio.wait_for(reader.readexactly(9), 60)
        return head[3] != GOAWAY
    return False


async def test_no_more_connections_than_allowed(config: CloudConfig) -> None:
    few = dataclasses.replace(config, grpc_connections=3)
    async with run_cloud(few) as cloud:
        await check_serves(cloud)  # the first
        others = [await connect(cloud) for _ in range(2)]
        assert [await is_served(each) for each in others] == [True, True]
        refused = await connect(cloud)
        assert not await is_served(refused)
        await check_serves(cloud)
        for _, writer in (*others, refused):
            writer.transport.abort()
        async with asyncio.timeout(60):
            while not await is_served(again := await connect(cloud)):
                again[1].transport.abort()
        again[1].transport.abort()
        await check_serves(cloud)


async def test_a_message_that_comes_in_pieces_is_read(
    config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with crowded(config, monkeypatch) as (cloud, doors):
        for _ in range(PLACES):
            doors.calls.begin(object())
        reader, writer = await connect(cloud)
        message = request_of("pixels", random_pixels(0)).SerializeToString()
        call = b"\0" + struct.pack(">I", len(message)) + message
        writer.write(PREFACE + http2_frame(SETTINGS, b"") + grpc_call(MODEL_INFER.path))
        for start in range(0, len(call), 5000):
            writer.write(http2_frame(DATA, call[start : start + 5000], stream=1))
            await writer.drain()
            await check_serves(cloud)
        writer.write(http2_frame(DATA, b"", flags=1, stream=1))
        assert await asyncio.wait_for(ended_by_server(reader), 60)
        codes = inference_of(cloud).statistics.of("tiny", "1").codes
        assert set(codes) == {"OK"}
        writer.transport.abort()


def test_connections_there_must_be(config: CloudConfig) -> None:
    with pytest.raises(ConfigError, match="grpc_connections must be at least 1"):
        dataclasses.replace(config, grpc_connections=0)

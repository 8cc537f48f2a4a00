"""Requests take no more memory than there is for them, and nobody can keep it all."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.cloud.room import CONNECTIONS_SHARE, Place, Room
from hybridge.cloud.statistics import ModelFigures, Refusal
from hybridge.protos import open_inference_pb2 as pb
from hybridge.protos.oip import MODEL_INFER
from hybridge.shared.errors import Overloaded

from .bundles import random_pixels
from .conftest import Cloud
from .test_bad_input import check_refused, check_serves, gated, inference_of, whole_stage
from .test_floods import DATA, END_STREAM, PREFACE, SETTINGS, grpc_call, http2_frame
from .test_service import request_of

_INITIAL_WINDOW = 0x4


def room_of(limit_bytes: int) -> Room:
    return Room(limit_bytes, refused=ModelFigures())


def test_what_does_not_fit_is_refused_until_others_leave() -> None:
    figures = ModelFigures()
    room = Room(100, refused=figures)
    places = [room.take(25, connection=name) for name in "abcd"]
    with pytest.raises(Overloaded, match=r"under way take 100 B; .* 100 B in all"):
        room.take(1, connection="e")
    assert (figures.refusals, figures.codes) == ({Refusal.MEMORY: 1}, {"RESOURCE_EXHAUSTED": 1})
    places[0].leave()
    with room.take(25, connection="e"):
        assert room.taken_bytes == 100
    assert room.taken_bytes == 75


def test_a_connection_has_its_share_and_its_answers_count() -> None:
    room = room_of(100)
    place = room.take(10, connection="a")
    place.answer(20)
    with pytest.raises(Overloaded, match="those of this connection"):
        room.take(1, connection="a")
    room.take(25, connection="b")
    place.leave()
    place.leave()
    assert room.taken_bytes == 25


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("abcde"), st.integers(0, 40)), max_size=60
    )
)
def test_nothing_is_lost_and_the_limits_hold(steps: list[tuple[str, str, int]]) -> None:
    room, held = room_of(100), dict[Place, tuple[str, int]]()
    for what, connection, size in steps:
        before = room.taken_bytes
        own = sum(taken for name, taken in held.values() if name == connection)
        if what == "a":
            try:
                held[room.take(size, connection=connection)] = (connection, size)
            except Overloaded:
                assert before + size > 100 or own + size > 100 // CONNECTIONS_SHARE
            else:
                assert room.taken_bytes <= 100
                assert own + size <= 100 // CONNECTIONS_SHARE
        elif held:
            place = next(iter(held))
            name, taken = held.pop(place)
            if what == "b":
                place.leave()
            else:
                place.answer(size)
                held[place] = (name, taken + size)
        assert room.taken_bytes == sum(taken for _, taken in held.values())
    for place in held:
        place.leave()
    assert room.taken_bytes == 0
    assert not room._of


def room_in(cloud: Cloud) -> Room:
    front = cloud.server._front
    assert front is not None
    return front.room


async def until(cloud: Cloud, condition: Callable[[], bool]) -> None:
    """Lets the cloud go on until something is so."""
    async with asyncio.timeout(60):
        while not condition():
            await cloud.stub.ServerLive(pb.ServerLiveRequest())


async def test_without_room_a_request_is_refused_and_nothing_stays_taken(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, room = request_of("pixels", random_pixels(0)), room_in(cloud)
    with monkeypatch.context() as small:
        small.setattr(room, "limit_bytes", CONNECTIONS_SHARE * request.ByteSize() - 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cloud.stub.ModelInfer(request, timeout=60)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "those of this connection" in str(caught.value.details())
        stream = cloud.stub.ModelStreamInfer()
        await stream.write(request)
        assert "overloaded: those of this connection" in (await stream.read()).error_message
        await stream.done_writing()
    assert inference_of(cloud).statistics.unknown.refusals == {Refusal.MEMORY: 2}
    await check_serves(cloud)
    bad = request_of("pixels", random_pixels(0)[1:])
    await check_refused(cloud, bad, grpc.StatusCode.INVALID_ARGUMENT, "bad tensor")
    await until(cloud, lambda: room.taken_bytes == 0)


async def test_whoever_leaves_takes_nothing_along(cloud: Cloud) -> None:
    request, room = request_of("pixels", random_pixels(0)), room_in(cloud)
    async with gated(whole_stage(cloud)) as gate:
        call, stream = cloud.stub.ModelInfer(request), cloud.stub.ModelStreamInfer()
        await stream.write(request)
        for _ in range(2):
            assert await asyncio.to_thread(gate.entered.acquire, timeout=60)
        assert room.taken_bytes >= 2 * len(request.raw_input_contents[0])
        call.cancel()
        stream.cancel()
        await until(cloud, lambda: room.taken_bytes == 0)


@asynccontextmanager
async def deaf(cloud: Cloud) -> AsyncIterator[asyncio.StreamWriter]:
    """A connection whose other end may send no data at all: its windows are closed."""
    reader, writer = await asyncio.open_connection(cloud.address.host, cloud.address.port)
    writer.write(PREFACE + http2_frame(SETTINGS, struct.pack(">HI", _INITIAL_WINDOW, 0)))
    reading = asyncio.ensure_future(reader.read())  # what is no data does not pile up either
    try:
        yield writer
    finally:
        writer.transport.abort()
        await asyncio.gather(reading, return_exceptions=True)


async def test_who_never_reads_answers_has_a_part_and_the_others_the_rest(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = inference_of(cloud).statistics
    message = request_of("pixels", random_pixels(0)).SerializeToString()
    room = room_in(cloud)
    monkeypatch.setattr(room, "limit_bytes", CONNECTIONS_SHARE * 3 * len(message))
    call = b"\0" + struct.pack(">I", len(message)) + message
    async with deaf(cloud) as writer:
        for stream in range(1, 20, 2):
            writer.write(grpc_call(MODEL_INFER.path, stream=stream))
            writer.write(http2_frame(DATA, call, flags=END_STREAM, stream=stream))
        await until(
            cloud,
            lambda: figures.of("tiny", "1").codes["OK"] + figures.unknown.refusals.total() == 10,
        )
        served = figures.of("tiny", "1").codes["OK"]
        assert 1 <= served <= 3
        assert served * len(message) < room.taken_bytes <= room.limit_bytes // 2
        await check_serves(cloud)
    await until(cloud, lambda: room.taken_bytes == 0)


async def test_who_never_reads_a_stream_holds_up_nobody(cloud: Cloud) -> None:
    request, room = request_of("pixels", random_pixels(0)), room_in(cloud)
    stream = cloud.stub.ModelStreamInfer()
    for _ in range(100):
        await stream.write(request)
    await check_serves(cloud)
    stream.cancel()
    await until(cloud, lambda: room.taken_bytes == 0)

"""What does harm at an open port: each gets the right word or the door, and nobody else notices."""

import asyncio
import contextlib
import dataclasses
import logging
import random
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import pytest

from hybridge.cloud import web
from hybridge.cloud.config import CloudConfig
from hybridge.shared.security import MAX_MESSAGE_BYTES, Address

from .bundles import random_pixels
from .conftest import Cloud
from .test_bad_input import check_serves, inference_of
from .test_rest import infer_json
from .test_service import request_of

DOORS = ("grpc", "http", "sagemaker", "metrics")
HTTP_DOORS = DOORS[1:]
HERE = Address("127.0.0.1", 0)
POST = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\n"
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def config(bundles: Path, config: CloudConfig) -> CloudConfig:
    return dataclasses.replace(config, http=HERE, sagemaker=HERE, metrics=HERE)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def address_of(cloud: Cloud, door: str) -> Address:
    return cloud.address if door == "grpc" else cloud.server.sites[door]


@contextlib.asynccontextmanager
async def connected(cloud: Cloud, door: str) -> AsyncIterator[Pair]:
    address = address_of(cloud, door)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side hangs up."""
    content = bytearray()
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(60):
            while part := await reader.read(1 << 16):
                content += part
    return bytes(content)


async def check_all_serve(cloud: Cloud, session: aiohttp.ClientSession) -> None:
    await check_serves(cloud)
    paths = {"http": "/v2/models/tiny/infer", "sagemaker": "/invocations"}
    for door, path in paths.items():
        url = f"http://{address_of(cloud, door)}{path}"
        async with session.post(url, json=infer_json()) as response:
            assert response.status == 200
    async with session.get(f"http://{address_of(cloud, 'metrics')}/metrics") as response:
        assert response.status == 200


@pytest.mark.parametrize("door", DOORS)
async def test_random_bytes(cloud: Cloud, session: aiohttp.ClientSession, door: str) -> None:
    rng = random.Random(0)
    for length in (1, 10, 100, 10_000, 100_000):
        async with connected(cloud, door) as (reader, writer):
            with contextlib.suppress(OSError):  # it may have hung up already
                writer.write(rng.randbytes(length) + b"\r\n\r\n")
                await writer.drain()
                writer.write_eof()
            answer = await read_all(reader)
            if door != "grpc" and answer:
                assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
    await check_all_serve(cloud, session)


@pytest.mark.parametrize("door", HTTP_DOORS)
async def test_requests_that_break_off(
    cloud: Cloud, session: aiohttp.ClientSession, door: str
) -> None:
    whole = (
        b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        + b" " * 99
    )
    for length in (3, 30, 60, len(whole)):
        async with connected(cloud, door) as (_, writer):
            writer.write(whole[:length])
            await writer.drain()
    await check_all_serve(cloud, session)


async def test_who_does_not_wait_for_the_answer_fills_no_log(
    cloud: Cloud, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(50):
        async with connected(cloud, "http") as (_, writer):
            writer.write(POST + b"Content-Length: 2\r\n\r\n{}")
            await writer.drain()
    await check_all_serve(cloud, session)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_what_is_no_http_fills_no_log(
    cloud: Cloud, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    for bad in (b"X: " + b"a" * 20_000, b"X: a\r\n" * 2_000, b"Content-Length: x"):
        async with connected(cloud, "http") as (reader, writer):
            writer.write(POST + bad + b"\r\n\r\n")
            assert b" 400 " in await reader.readline()
    await check_all_serve(cloud, session)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("door", ["http", "sagemaker"])
async def test_a_claim_of_two_gigabytes(
    cloud: Cloud, session: aiohttp.ClientSession, door: str
) -> None:
    path = {"http": "/v2/models/tiny/infer", "sagemaker": "/invocations"}[door]
    async with connected(cloud, door) as (reader, writer):
        claim = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {2 << 30}\r\n\r\n"
        writer.write(claim.encode() + bytes(1000))
        assert b" 413 " in await reader.readline()
    await check_all_serve(cloud, session)


async def test_a_body_that_does_not_end(cloud: Cloud, session: aiohttp.ClientSession) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(MAX_MESSAGE_BYTES // (1 << 20) + 8):
            yield bytes(1 << 20)

    url = f"http://{address_of(cloud, 'http')}/v2/models/tiny/infer"
    async with session.post(url, data=endless()) as response:
        assert response.status == 413
    await check_all_serve(cloud, session)


def http2(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing and Huffman (RFC 7541, 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


async def test_a_grpc_message_that_claims_two_gigabytes(
    cloud: Cloud, session: aiohttp.ClientSession
) -> None:
    headers = b"".join(
        literal(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/inference.GRPCInferenceService/ModelInfer"),
            (b":authority", b"x"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        )
    )
    async with connected(cloud, "grpc") as (reader, writer):
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + http2(4, 0, 0, b""))
        writer.write(http2(1, 4, 1, headers))
        writer.write(http2(0, 0, 1, b"\0" + struct.pack(">I", (1 << 31) - 1) + bytes(1000)))
        await writer.drain()
        ended = False
        async with asyncio.timeout(60):
            while not ended:
                head = await reader.readexactly(9)
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                # Trailers with END_STREAM, or RST_STREAM.
                ended = stream == 1 and (kind == 3 or (kind == 1 and flags & 1))
    await check_all_serve(cloud, session)


@pytest.mark.parametrize("sent", [b"", b"GET /v2 HT", b"GET /v2 HTTP/1.1\r\nHost: x\r\n"])
@pytest.mark.parametrize("door", HTTP_DOORS)
async def test_who_says_nothing_is_let_go(
    config: CloudConfig,
    cloud: Cloud,
    session: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    door: str,
    sent: bytes,
) -> None:
    await check_all_serve(cloud, session)  # these stay
    monkeypatch.setattr(web, "_HEADERS_S", 0.05)
    async with connected(cloud, door) as (reader, writer):
        writer.write(sent)
        assert await read_all(reader) == b""
    await check_all_serve(cloud, session)


async def test_a_body_that_never_comes(
    cloud: Cloud, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_BODY_S", 0.05)
    async with connected(cloud, "http") as (reader, writer):
        writer.write(
            b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
        )
        assert b" 408 " in await reader.readline()
    monkeypatch.undo()
    await check_all_serve(cloud, session)


async def test_who_does_not_read_is_let_go(
    cloud: Cloud, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_BODY_S", 0.2)
    address = address_of(cloud, "metrics")
    loop = asyncio.get_running_loop()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        await loop.sock_connect(deaf, (address.host, address.port))

        async def ask_for_ever() -> None:
            while True:
                await loop.sock_sendall(deaf, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(ask_for_ever(), 60)
    monkeypatch.undo()
    await check_all_serve(cloud, session)


async def test_floods_of_expired_deadlines_cost_no_computing(
    cloud: Cloud, session: aiohttp.ClientSession
) -> None:
    figures = inference_of(cloud).statistics.of("tiny", "1")
    request = request_of("pixels", random_pixels(0), latency_budget_ms=1e-3)
    url = f"http://{address_of(cloud, 'http')}/v2/models/tiny/infer"

    async def by_grpc() -> bool:
        try:
            await cloud.stub.ModelInfer(request)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return False

    async def by_http() -> bool:
        async with session.post(url, json=infer_json(latency_budget_ms=1e-3)) as response:
            return response.status == 504

    calls = [by_grpc() for _ in range(200)] + [by_http() for _ in range(100)]
    assert all(await asyncio.gather(*calls))
    assert figures.batches == {}
    assert figures.refusals == {"deadline": 300}
    await check_all_serve(cloud, session)


async def test_unknown_parameters_are_nobodys_business(
    cloud: Cloud, session: aiohttp.ClientSession
) -> None:
    await cloud.stub.ModelInfer(request_of("pixels", random_pixels(0), colour="red"))
    url = f"http://{address_of(cloud, 'http')}/v2/models/tiny/infer"
    async with session.post(url, json=infer_json(colour="red", sequence_id=5)) as response:
        assert response.status == 200


async def test_many_tiny_requests(cloud: Cloud, session: aiohttp.ClientSession) -> None:
    url = f"http://{address_of(cloud, 'http')}/v2/models/tiny/infer"

    async def tiny() -> int:
        async with session.post(url, data=b"{}") as response:
            return response.status

    assert set(await asyncio.gather(*(tiny() for _ in range(300)))) == {400}
    await check_all_serve(cloud, session)

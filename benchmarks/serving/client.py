"""The one client of all servers: an event loop that sends ready-made bytes, and takes the time.

It neither makes requests nor reads answers in detail: what a client costs is taken from the same
two cores, and shall be little and the same for everybody.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc
import numpy as np

from hybridge.protos import open_inference_pb2 as pb
from hybridge.protos.oip import MODEL_INFER
from hybridge.shared import oip
from hybridge.shared.security import CHANNEL_OPTIONS, Address

from .models import Served

CALL_S = 60.0
_HEAD_BYTES = 1 << 16
FAULTS = (OSError, EOFError, grpc.aio.AioRpcError)
"""What a call raises where there is no answer; TimeoutError is an OSError."""


class Caller(Protocol):
    """One way to send the one request; raises where the answer is no success."""

    async def call(self, *, timeout_s: float = CALL_S) -> bytes:
        """Sends it and returns the body of the answer; one of FAULTS if there is none in time."""

    async def close(self) -> None: ...


class GrpcCaller:
    """Sends the same message to a method, again and again."""

    def __init__(self, address: Address, method: str, message: bytes) -> None:
        self._channel = grpc.aio.insecure_channel(str(address), options=CHANNEL_OPTIONS)
        self._send: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        self._send = self._channel.unary_unary(method)
        self._message = message

    async def call(self, *, timeout_s: float = CALL_S) -> bytes:
        return await self._send(self._message, timeout=timeout_s)

    async def close(self) -> None:
        await self._channel.close()


class HttpCaller:
    """POSTs the same body; a connection per request under way, kept open."""

    def __init__(self, address: Address, path: str, body: bytes, content_type: str) -> None:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body
        self._address = address
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(self, *, timeout_s: float = CALL_S) -> bytes:
        async with asyncio.timeout(timeout_s):
            reader, writer = self._idle.pop() if self._idle else await self._connect()
            try:
                body = await self._exchange(reader, writer)
            except BaseException:  # what is on its way would be taken for the next answer
                writer.close()
                raise
        self._idle.append((reader, writer))
        return body

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(self._request)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        fields = head.lower()
        if b"content-length:" in fields:
            size = int(fields.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            body = await reader.readexactly(size)
        else:
            body = await _chunks(reader)
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise ConnectionError(f"{head.decode(errors='replace')}{body[:500]!r}")
        return body

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            self._address.host, self._address.port, limit=_HEAD_BYTES
        )


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


def infer_message(served: Served, **parameters: oip.Value) -> bytes:
    """A ModelInferRequest for the model's one input, as bytes."""
    request = pb.ModelInferRequest(model_name=served.name)
    oip.add_input(request, oip.PIXELS, served.item)
    oip.set_parameters(request.parameters, parameters)
    return request.SerializeToString()


def infer_caller(address: Address, served: Served) -> GrpcCaller:
    """Calls any server of the Open Inference Protocol."""
    return GrpcCaller(address, MODEL_INFER.path, infer_message(served))


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a closed loop saw: answers a second, and how long each took."""

    rps: float
    latencies_ms: Sequence[float]

    def quantile_ms(self, share: float) -> float:
        return float(np.quantile(self.latencies_ms, share))


async def closed_loop(caller: Caller, *, concurrency: int, seconds: float) -> Load:
    """So many requests always under way; an answer counts if it came before the time was up."""
    latencies_ms: list[float] = []
    start_s = time.perf_counter()
    end_s = start_s + seconds

    async def one_after_the_other() -> None:
        while (sent_s := time.perf_counter()) < end_s:
            await caller.call()
            now_s = time.perf_counter()
            if now_s <= end_s:
                latencies_ms.append((now_s - sent_s) * 1e3)

    await asyncio.gather(*(one_after_the_other() for _ in range(concurrency)))
    return Load(rps=len(latencies_ms) / seconds, latencies_ms=latencies_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request of an open loop: when it is sent, after the start, and how long it may take."""

    at_s: float
    budget_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of it: answered or not, after how long; a fault by its name."""

    arrival: Arrival
    took_s: float
    fault: str = ""

    @property
    def in_time(self) -> bool:
        return not self.fault and self.took_s <= self.arrival.budget_s


def poisson(rate: float, *, seconds: float, budgets_s: Sequence[float], seed: int) -> list[Arrival]:
    """Arrivals that know nothing of each other, each with one of the budgets."""
    rng = np.random.default_rng(seed)
    gaps_s = rng.exponential(1 / rate, int(rate * seconds * 2) + 10)
    times_s = np.cumsum(gaps_s)
    return [
        Arrival(at_s=float(at_s), budget_s=float(rng.choice(budgets_s)))
        for at_s in times_s[times_s < seconds]
    ]


async def open_loop(caller: Caller, arrivals: Sequence[Arrival]) -> list[Outcome]:
    """Sends each when its time has come, whatever became of those before."""
    loop = asyncio.get_running_loop()
    start_s = loop.time()

    async def one(arrival: Arrival) -> Outcome:
        sent_s, fault = loop.time(), ""
        try:
            await caller.call(timeout_s=arrival.budget_s)
        except FAULTS as error:
            fault = (
                error.code().name
                if isinstance(error, grpc.aio.AioRpcError)
                else type(error).__name__
            )
        return Outcome(arrival=arrival, took_s=loop.time() - sent_s, fault=fault)

    sent: list[asyncio.Task[Outcome]] = []
    for arrival in arrivals:
        await asyncio.sleep(max(0.0, start_s + arrival.at_s - loop.time()))
        sent.append(asyncio.create_task(one(arrival)))
    return list(await asyncio.gather(*sent))

"""A long day in small: mixed load from clients that vanish, cancel and stall.

    python benchmarks/serving --only soak [--soak-minutes 10] [--soak-rate 20]

First come as many at once as never again, since allocators keep what their largest hour took. After
that and a fifth of the time nothing may grow: no memory, no file, no thread.
"""

import argparse
import asyncio
import contextlib
import random
import statistics
import struct
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from _common import Target

from hybridge.cli.console import table
from hybridge.protos.oip import MODEL_INFER
from hybridge.shared.security import CHANNEL_OPTIONS, Address

from .client import FAULTS, infer_message
from .findings import Asked, Findings
from .models import MOBILE_UINT8, Served, make_models
from .processes import ServerProcess, cloud

FLAT = 0.01
ASKED = [
    Asked("soak: resident memory grows by", "", FLAT),
    Asked("soak: files left open", "files", 0),
    Asked("soak: threads left", "threads", 0),
]
_ASKED_S = 600.0
_WARM_UP = 0.2
_SAMPLES = 50
_CROWDS, _CROWD = 3, 150
_SEED = 7
_STALL_S = 2.0
_BUDGET_S = 2.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = bytes.fromhex("000000040000000000")
_SERVED = MOBILE_UINT8


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--soak-minutes", type=float, default=10.0, metavar="N")
    parser.add_argument("--soak-rate", type=float, default=20.0, metavar="PER_S")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The server at an instant, while nothing is asked of it."""

    resident_bytes: int
    files: int
    threads: int

    @classmethod
    def of(cls, running: ServerProcess) -> "Sample":
        return cls(
            resident_bytes=running.resident_bytes, files=running.files, threads=running.threads
        )


def measure(options: argparse.Namespace) -> Findings:
    store = make_models()
    seconds = 5.0 if options.quick else options.soak_minutes * 60
    with (
        tempfile.TemporaryDirectory(prefix="hybridge-serving-") as logs,
        cloud(store.bundles(_SERVED), log=Path(logs) / "cloud.log") as running,
    ):
        samples, ends = asyncio.run(_soak(running, seconds, options.soak_rate))
    warm = samples[int(len(samples) * _WARM_UP) :]
    quarter = max(1, len(warm) // 4)
    growth = {
        name: _middle(warm[-quarter:], name) / _middle(warm[:quarter], name) - 1
        for name in ("resident_bytes",)
    }
    # A connection may be closing while one looks; what is left open is there however often.
    more = {
        name: _least(warm[-quarter:], name) - _least(warm[:quarter], name)
        for name in ("files", "threads")
    }
    note = f"{seconds:.0f} s; {_ASKED_S:.0f} are asked" if seconds < _ASKED_S else ""
    return Findings(
        targets=[
            Target.at_most(
                "soak: resident memory grows by",
                growth["resident_bytes"],
                unit="",
                bound=FLAT,
                note=note,
            ),
            Target.at_most(
                "soak: files left open", more["files"], unit="files", bound=0, note=note
            ),
            Target.at_most(
                "soak: threads left", more["threads"], unit="threads", bound=0, note=note
            ),
            Target.at_least(
                "soak: answers to those who waited", ends["answered"], unit="answers", bound=1
            ),
        ],
        figures={"seconds": seconds, "ends": dict(ends)},
        samples={"samples": [vars_of(sample) for sample in samples]},
        tables=[
            table(
                f"{seconds:.0f} s of mixed load",
                ("when", "resident MB", "files", "threads"),
                [
                    (
                        name,
                        f"{_middle(part, 'resident_bytes') / 1e6:.1f}",
                        f"{_least(part, 'files')}",
                        f"{_least(part, 'threads')}",
                    )
                    for name, part in (("warm", warm[:quarter]), ("end", warm[-quarter:]))
                ],
            )
        ],
        notes=[f"soak: {count} clients: {name}" for name, count in sorted(ends.items())],
    )


def vars_of(sample: Sample) -> dict[str, int]:
    """For the report."""
    return {
        "resident_bytes": sample.resident_bytes,
        "files": sample.files,
        "threads": sample.threads,
    }


def _middle(samples: list[Sample], name: str) -> float:
    return statistics.median(vars_of(sample)[name] for sample in samples)


def _least(samples: list[Sample], name: str) -> int:
    return min(vars_of(sample)[name] for sample in samples)


async def _soak(
    running: ServerProcess, seconds: float, rate: float
) -> tuple[list[Sample], Counter[str]]:
    """Bursts of clients of every kind, and between them a look at the server."""
    rng, ends = random.Random(_SEED), Counter[str]()
    loop = asyncio.get_running_loop()
    for _ in range(_CROWDS):
        crowd = (_count(rng.choice(_KINDS), running.address, ends) for _ in range(_CROWD))
        await asyncio.gather(*crowd)
    end_s, samples = loop.time() + seconds, []
    burst_s = seconds / _SAMPLES
    while loop.time() < end_s:
        burst: list[asyncio.Task[None]] = []
        for _ in range(max(1, round(rate * burst_s))):
            kind = rng.choice(_KINDS)
            burst.append(asyncio.create_task(_count(kind, running.address, ends)))
            await asyncio.sleep(rng.expovariate(rate))
        await asyncio.gather(*burst)
        samples.append(Sample.of(running))
    return samples, ends


async def _count(kind: "Kind", address: Address, ends: Counter[str]) -> None:
    try:
        ends[await kind(address, _SERVED)] += 1
    except FAULTS as error:  # the server may be full; what matters is what it keeps
        ends[f"{kind.__name__.strip('_')}: {type(error).__name__}"] += 1


Kind = Callable[[Address, Served], Awaitable[str]]


@contextlib.asynccontextmanager
async def _call(
    address: Address, served: Served
) -> AsyncIterator["grpc.aio.UnaryUnaryCall[bytes, bytes]"]:
    """A request under way on a connection of its own."""
    async with grpc.aio.insecure_channel(str(address), options=CHANNEL_OPTIONS) as channel:
        send: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        send = channel.unary_unary(MODEL_INFER.path)
        yield send(infer_message(served), timeout=_BUDGET_S)


async def _patient(address: Address, served: Served) -> str:
    async with _call(address, served) as call:
        code = await call.code()
    return "answered" if code is grpc.StatusCode.OK else f"patient: {code.name}"


async def _cancelling(address: Address, served: Served) -> str:
    async with _call(address, served) as call:
        await call.wait_for_connection()
        await asyncio.sleep(0.001)
        call.cancel()
    return "cancelled"


async def _vanishing(address: Address, served: Served) -> str:
    """The connection is gone while the answer is computed."""
    async with _call(address, served) as call:
        await call.wait_for_connection()
        await asyncio.sleep(0.001)
    return "vanished"


async def _stalling(address: Address, served: Served) -> str:
    """Begins a message that never ends."""
    del served
    _, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(_PREFACE + _SETTINGS + struct.pack(">I", 1 << 20)[1:] + b"\x00\x00")
    await writer.drain()
    await asyncio.sleep(_STALL_S)
    writer.transport.abort()
    return "stalled"


async def _babbling(address: Address, served: Served) -> str:
    """Speaks no protocol at all."""
    del served
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(random.Random(_SEED).randbytes(4096))
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), _STALL_S)
    writer.close()
    return "babbled"


async def _wrong(address: Address, served: Served) -> str:
    """Sends half a message as if it were whole."""
    message = infer_message(served)
    async with grpc.aio.insecure_channel(str(address), options=CHANNEL_OPTIONS) as channel:
        send: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        send = channel.unary_unary(MODEL_INFER.path)
        code = await send(message[: len(message) // 2], timeout=_BUDGET_S).code()
    return f"half a message: {code.name}"


_KINDS: tuple[Kind, ...] = (
    *[_patient] * 4,
    _cancelling,
    _vanishing,
    _stalling,
    _babbling,
    _wrong,
)

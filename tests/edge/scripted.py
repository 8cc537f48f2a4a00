"""Connections that do what they are told, under a clock moved by hand."""

import asyncio
from dataclasses import dataclass, field

from hybridge.edge.cloud_messages import CloudAnswer
from hybridge.edge.connection import Connection
from hybridge.edge.uplink import Uplink
from hybridge.protos import fleet_pb2
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared.errors import RemoteError

from ..bundles import NAME
from .clouds import answer_of

SOON_S = 20.0
"""What is waited for has happened by then, however busy the machine is."""
TAILS = [fleet_pb2.TailState(contract="c", compute_p50_ms=1.0, compute_p95_ms=1.0)]


@dataclass
class Clock:
    """Moved by hand."""

    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(eq=False)
class Scripted:
    """A connection that does what it is told, once it may."""

    fault: RemoteError | None = None
    tails: list[fleet_pb2.TailState] = field(default_factory=lambda: TAILS)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    may_infer: asyncio.Event = field(default_factory=asyncio.Event)
    may_probe: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    probes: int = 0

    async def infer(
        self, request: pb.ModelInferRequest, *, timeout_s: float
    ) -> pb.ModelInferResponse:
        self.asked.set()
        await self.may_infer.wait()
        if self.fault is not None:
            raise self.fault
        return answer_of(0, 0, 0, 0, 1)

    async def probe(self, payload_bytes: int, *, timeout_s: float) -> fleet_pb2.ProbeResponse:
        self.probes += 1
        self.asked.set()
        await self.may_probe.wait()
        if self.fault is not None:
            raise self.fault
        return fleet_pb2.ProbeResponse(tails=self.tails)

    async def close(self, *, grace_s: float | None = None) -> None:
        self.closed.set()


def free(fault: RemoteError | None = None) -> Scripted:
    """One that answers at once."""
    connection = Scripted(fault)
    connection.may_infer.set()
    connection.may_probe.set()
    return connection


class Scene:
    """An uplink over scripted connections, in the order they are opened; nothing watches it."""

    def __init__(self, *connections: Scripted) -> None:
        self.clock = Clock()
        self._coming = list(connections)
        self.opened: list[Scripted] = []
        self.uplink = Uplink(self._open, clock=self.clock, name="scripted")
        self.uplink._connection = self._open()

    def _open(self) -> Connection:
        self.opened.append(self._coming.pop(0))
        return self.opened[-1]

    async def exchange(self, left_ms: float = 1_000.0) -> CloudAnswer:
        return await self.uplink.infer(
            b"frame", model=NAME, version="1", parameters={"contract": "c"}, left_ms=left_ms
        )

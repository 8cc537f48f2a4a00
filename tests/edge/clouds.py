"""Clouds that misbehave, each on a port of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np

from hybridge.protos import fleet_pb2, fleet_pb2_grpc, oip
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip as messages
from hybridge.shared.bundle import Bundle
from hybridge.shared.security import SERVER_OPTIONS, Address, Security

Behaviour = Callable[[pb.ModelInferRequest, oip.Context], Awaitable[pb.ModelInferResponse]]


def answer_of(*probabilities: float, **parameters: messages.Value) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(model_name="small")
    array = np.array([probabilities], np.float32)
    messages.add_output(response, "probabilities", array)
    times = {messages.QUEUE_MS: 0.0, messages.COMPUTE_MS: 0.1, messages.FORECAST_MS: 0.0}
    messages.set_parameters(response.parameters, {**times, **parameters})
    return response


@dataclass
class FakeCloud(oip.Servicer, fleet_pb2_grpc.FleetServicer):
    """Answers probes as a quick cloud would, and inference as it is told."""

    bundle: Bundle
    behave: Behaviour | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    allowed: asyncio.Event = field(default_factory=asyncio.Event)
    answer: pb.ModelInferResponse = field(default_factory=lambda: answer_of(0, 0, 0, 0, 1))
    requests: list[pb.ModelInferRequest] = field(default_factory=list)
    probed: "asyncio.Queue[int]" = field(default_factory=asyncio.Queue)
    loaded: bool = True
    queue_ms: float = 0.0
    picture_formats: list[str] = field(default_factory=list)
    server: grpc.aio.Server = field(init=False)
    address: Address = field(init=False)

    async def Probe(
        self, request: fleet_pb2.ProbeRequest, context: object
    ) -> fleet_pb2.ProbeResponse:
        self.probed.put_nowait(len(request.payload))
        large = self.bundle.manifest.large
        contracts = [large.pixels, *(cut.contract for cut in large.cuts)] if self.loaded else []
        return fleet_pb2.ProbeResponse(
            queue_forecast_ms=self.queue_ms,
            picture_formats=self.picture_formats,
            tails=[
                fleet_pb2.TailState(contract=each.id, compute_p50_ms=0.1, compute_p95_ms=0.1)
                for each in contracts
            ],
        )

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: oip.Context
    ) -> pb.ModelInferResponse:
        """Unless told otherwise: tells that it was asked, and answers once it may."""
        self.requests.append(request)
        self.asked.set()
        if self.behave is not None:
            return await self.behave(request, context)
        try:
            await self.allowed.wait()
        except asyncio.CancelledError:
            self.gone.set()
            raise
        return self.answer

    async def start(self, address: Address) -> None:
        self.server = grpc.aio.server(options=SERVER_OPTIONS)
        oip.add_servicer(self.server, self)
        fleet_pb2_grpc.add_FleetServicer_to_server(self, self.server)
        self.address = Security().bind(self.server, address)
        await self.server.start()


@asynccontextmanager
async def fake_cloud(
    bundle: Bundle, behave: Behaviour | None = None, *, address: Address | None = None
) -> AsyncIterator[FakeCloud]:
    cloud = FakeCloud(bundle, behave)
    await cloud.start(address or Address("127.0.0.1", 0))
    try:
        yield cloud
    finally:
        await cloud.server.stop(None)


class Wire:
    """A TCP relay before a cloud. While `broken`, bytes are taken and go nowhere."""

    def __init__(self, target: Address) -> None:
        self.broken = False
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._connections = self._silent = 0

    async def __aenter__(self) -> "Wire":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = Address("127.0.0.1", self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.cut()

    def silence(self) -> None:
        """The connections there are carry nothing any more, and never end; new ones work."""
        self._silent = self._connections

    async def cut(self) -> None:
        """Ends every connection; new ones are taken."""
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            there, back = await asyncio.open_connection(self._target.host, self._target.port)
        except OSError:
            writer.close()
            return
        self._writers += (writer, back)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pump(source, sink, self._connections))
            self._tasks.add(task)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, number: int
    ) -> None:
        def silent() -> bool:
            return self.broken or number <= self._silent

        with contextlib.suppress(ConnectionError):
            while chunk := await source.read(1 << 16):
                if not silent():
                    sink.write(chunk)
                    await sink.drain()
        if not silent():
            sink.close()

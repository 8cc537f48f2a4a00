"""The world around the agent, simulated: a small board, a link, a cloud. The agent is the real one.

The board is one processor of which a quota is used (processor.py). The link carries packets as the
laboratory's emulator does, but what runs over it is taken to be in order and without loss, as TCP
is. The cloud serves earliest come first on a few instances, and refuses at once what it cannot
finish in time.
"""

import asyncio
import math
import random
import struct
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from hybridge.devices.models import LIGHT, RESIZE_LIGHT
from hybridge.devices.profile import StageTime
from hybridge.edge.bench import Framed, Lit
from hybridge.edge.duration import NO_TIME, Duration
from hybridge.edge.outlook import Waits, device_stages
from hybridge.protos import fleet_pb2
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip as messages
from hybridge.shared.answer import Probabilities
from hybridge.shared.came import Came
from hybridge.shared.deadline import Deadline
from hybridge.shared.errors import RemoteTooLate, RemoteUnavailable
from hybridge.shared.manifest import Manifest
from hybridge.shared.plan import Plan
from hybridge.shared.tensor import Array

from .answers import Answers
from .link_model import Direction
from .processor import BACKGROUND, FOREGROUND, Lane, Processor

T = TypeVar("T")

_CHUNK_BYTES = 16_384
_WINDOW_BYTES = 64_000
_PACE_S = 0.005
_SPARE_MS = 3.0
_CALL_BYTES = 180
"""HTTP/2 and gRPC around one message, with headers that have been sent before."""
_PIECE_BYTES = 14
"""Around a message on a stream: gRPC's five bytes and HTTP/2's nine."""
_TICK_S = 1e-4
STAMP = struct.Struct("<II")


@dataclass(frozen=True, kw_only=True)
class Board:
    """A small board: what it does, in ms of its processor, and what it knows of itself.

    `known` is its profile, `work_ms` the processor's time for each stage. `outside_ms` is what
    receiving and answering a request take around the agent, `inside_ms` what the agent takes
    itself for each lane entered, `exchange_ms` what a message to the cloud and its answer take: as
    found in a laboratory on an AMD EPYC, if not said otherwise.
    """

    known: dict[str, StageTime]
    work_ms: dict[str, float]
    decode_ms: float
    outside_ms: float = 1.1
    inside_ms: float = 1.1
    exchange_ms: float = 2.2
    share: float = 1.0
    workers: int = 2
    spread: float = 0.12
    """Of the logarithm of a time."""
    hiccup_ms: float = 2.0
    hiccups: float = 0.01
    """How often something else comes between, and how long it takes."""

    @property
    def capacity_hz(self) -> float:
        """How many requests a second it can answer alone."""
        work_ms = self.decode_ms + self.work_ms[RESIZE_LIGHT] + self.work_ms[LIGHT]
        return 1e3 * self.share / (work_ms + self.inside_ms + self.outside_ms)

    def draw(self, ms: float, chance: random.Random) -> float:
        """How much work it is this time."""
        drawn = ms * math.exp(chance.gauss(0.0, self.spread))
        if chance.random() < self.hiccups:
            drawn += chance.expovariate(1 / self.hiccup_ms)
        return drawn


class SimulatedBench:
    """A device that answers from the table of answers, in virtual time."""

    def __init__(self, board: Board, answers: Answers, manifest: Manifest, *, seed: int) -> None:
        self._board, self._answers = board, answers
        self._random = random.Random(seed)
        self._processor = Processor(share=board.share)
        self._light = Lane(self._processor, threads=1, weight=FOREGROUND)
        self._remote = Lane(self._processor, threads=board.workers, weight=BACKGROUND)
        self._classes = manifest.classes
        self._plans = {plan: at for at, plan in enumerate(answers.plans)}

    async def transport(self) -> None:
        """What is done around the agent on one way, in or out."""
        await self._overhead(self._board.outside_ms / 2)

    async def exchange(self) -> None:
        """What is done for a message on one way, to the cloud or back."""
        await self._overhead(self._board.exchange_ms / 2)

    async def decode(self, encoded: bytes, deadline: Deadline) -> Array:
        work_ms = self._board.draw(self._board.decode_ms, self._random)
        await self._light.run([work_ms], deadline, NO_TIME)
        return np.array([STAMP.unpack(encoded)[0]])

    async def light(self, picture: Array, deadline: Deadline, expected: Duration) -> Lit:
        at = int(picture[0])
        stages = await self._stages((RESIZE_LIGHT, LIGHT), self._light, deadline, expected)
        sure = float(self._answers.confidence[at])
        probabilities = np.full(self._classes, (1 - sure) / (self._classes - 1), np.float32)
        probabilities[self._answers.light[at]] = sure
        return Lit(probabilities, float(probabilities.max()), stages)

    async def frame(
        self, picture: Array, plan: Plan, deadline: Deadline, expected: Duration
    ) -> Framed:
        at, to = int(picture[0]), self._plans[str(plan)]
        stages = await self._stages(device_stages(plan), self._remote, deadline, expected)
        stamp = STAMP.pack(at, to)
        ends = self._answers.layer_ends[at, to]
        frame = stamp.ljust(int(self._answers.sizes[at, to]), b"\0")
        return Framed(frame, stages, tuple(ends[ends > 0].tolist()))

    def cpu_s(self) -> float:
        """The processor's time that the edge has used."""
        return self._processor.used_s()

    def waits(self, deadline: Deadline) -> Waits:
        return Waits(light=self._light.wait(deadline), remote=self._remote.wait(deadline))

    def close(self) -> None:
        pass

    async def _stages(
        self, names: Sequence[str], lane: Lane, deadline: Deadline, expected: Duration
    ) -> dict[str, float]:
        works_ms = [self._board.draw(self._board.work_ms[name], self._random) for name in names]
        await self._overhead(self._board.inside_ms)
        took_ms = await lane.run(works_ms, deadline, expected)
        return dict(zip(names, took_ms, strict=True))

    async def _overhead(self, ms: float) -> None:
        await self._processor.run(ms, FOREGROUND)


class Pipe:
    """A direction of a link, as TCP's bytes meet it: segments in order, none lost.

    What waits before the bottleneck is bounded by a window, as congestion control does; the rest
    stays with the sender, who may still give it up. What the model would drop comes one round trip
    later instead, and all that follows behind it.
    """

    def __init__(self, direction: Direction, *, again_s: float) -> None:
        self._direction, self._again_s = direction, again_s
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()

    async def send(self, size_bytes: int) -> float:
        """When the last byte of a message arrives; returns once the last has entered the link."""
        arrives_s = 0.0
        left = size_bytes
        while left > 0:
            chunk = min(left, _CHUNK_BYTES)
            async with self._lock:
                while (full := self._full_s()) > 0:  # noqa: ASYNC110  time alone can help
                    await asyncio.sleep(full)
                now_s = self._loop.time()
                arrives_s = self._direction.send(chunk, now_s, again_s=self._again_s)
            left -= chunk
        return arrives_s

    def _full_s(self) -> float:
        """How long to wait before anything more may enter the link."""
        now_s = self._loop.time()
        if now_s < self._direction.last_put_s:
            return self._direction.last_put_s - now_s
        waiting = self._direction.waiting_bytes(now_s)
        return _PACE_S if waiting > _WINDOW_BYTES else 0.0


@dataclass(kw_only=True)
class SimulatedCloud:
    """Instances that compute, a queue before them, and admission."""

    manifest: Manifest
    answers: Answers
    tails_ms: dict[str, float]
    """By contract id, one run."""
    instances: int = 1
    seed: int = 0
    refused: int = 0
    _free_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._free_s = [0.0] * self.instances
        self._plans = [Plan.parse(plan) for plan in self.answers.plans]

    def state(self, now_s: float) -> fleet_pb2.ProbeResponse:
        return fleet_pb2.ProbeResponse(
            queue_forecast_ms=self._queue_ms(now_s),
            tails=[
                fleet_pb2.TailState(contract=each, compute_p50_ms=ms, compute_p95_ms=1.2 * ms)
                for each, ms in self.tails_ms.items()
            ],
        )

    def needs_s(self, request: pb.ModelInferRequest, *, now_s: float) -> float:
        """How long before its deadline an answer has to be begun."""
        plan = self._plans[STAMP.unpack_from(request.raw_input_contents[0])[1]]
        ms = self.tails_ms[self.manifest.contract(plan).id] + self._queue_ms(now_s)
        return (ms + _SPARE_MS) / 1e3

    def serve(
        self, request: pb.ModelInferRequest, *, now_s: float, left_s: float, layers: int = 0
    ) -> tuple[float, pb.ModelInferResponse]:
        """When the answer is ready, and the answer; RemoteTooLate if it cannot be in time.

        It is made of so many layers of the frame, if it is in layers.
        """
        at, to = STAMP.unpack_from(request.raw_input_contents[0])
        plan = self._plans[to]
        ms = self.tails_ms[self.manifest.contract(plan).id]
        instance = min(range(self.instances), key=self._free_s.__getitem__)
        start_s = max(now_s, self._free_s[instance])
        if start_s + ms / 1e3 > now_s + left_s:
            self.refused += 1
            raise RemoteTooLate("forecast")
        took_ms = ms * math.exp(self._random.gauss(0.0, 0.1))
        self._free_s[instance] = start_s + took_ms / 1e3
        response = pb.ModelInferResponse(model_name=self.manifest.name)
        probabilities: Probabilities = np.zeros((1, self.manifest.classes), np.float32)
        of_layers = self.answers.layer_classes[at, to]
        given = of_layers[layers - 1] if layers else self.answers.classes[at, to]
        probabilities[0, given] = 1.0
        messages.add_output(response, messages.PROBABILITIES, probabilities)
        messages.set_parameters(
            response.parameters,
            {
                messages.QUEUE_MS: (start_s - now_s) * 1e3,
                messages.COMPUTE_MS: took_ms,
            },
        )
        return self._free_s[instance], response

    def tell(self, response: pb.ModelInferResponse, *, now_s: float) -> None:
        """An answer that leaves now says how long others would wait."""
        forecast = {messages.FORECAST_MS: self._queue_ms(now_s)}
        messages.set_parameters(response.parameters, forecast)

    def ends(self, request: pb.ModelInferRequest) -> list[int]:
        """Where the layers of a request's frame end."""
        at, to = STAMP.unpack_from(request.raw_input_contents[0])
        found = self.answers.layer_ends[at, to]
        return [int(end) for end in found[found > 0]]

    def _queue_ms(self, now_s: float) -> float:
        return max(min(self._free_s) - now_s, 0.0) * 1e3


class SimulatedConnection:
    """What the uplink holds for a connection. `effort` is made for every message, each way."""

    def __init__(
        self,
        cloud: SimulatedCloud,
        *,
        up: Pipe,
        down: Pipe,
        effort: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._cloud, self._up, self._down, self._effort = cloud, up, down, effort
        self._closed = False
        self._loop = asyncio.get_running_loop()

    async def infer(
        self, request: pb.ModelInferRequest, *, timeout_s: float
    ) -> pb.ModelInferResponse:
        return await self._within(timeout_s, self._infer(request, timeout_s))

    async def infer_in_pieces(
        self, requests: Sequence[pb.ModelInferRequest], *, timeout_s: float
    ) -> pb.ModelInferResponse:
        return await self._within(timeout_s, self._infer_in_pieces(requests, timeout_s))

    async def probe(self, payload_bytes: int, *, timeout_s: float) -> fleet_pb2.ProbeResponse:
        return await self._within(timeout_s, self._probe(payload_bytes))

    async def close(self, *, grace_s: float | None = None) -> None:
        if grace_s is not None:
            await asyncio.sleep(grace_s)
        self._closed = True

    async def _within(self, timeout_s: float, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                return await work
        except TimeoutError:
            raise RemoteTooLate("the deadline passed") from None

    async def _infer(
        self, request: pb.ModelInferRequest, timeout_s: float
    ) -> pb.ModelInferResponse:
        began_s = self._loop.time()
        await self._effort()
        await self._until(await self._up.send(request.ByteSize() + _CALL_BYTES))
        now_s = self._loop.time()
        left_s = began_s + timeout_s - now_s
        try:
            ready_s, response = self._cloud.serve(request, now_s=now_s, left_s=left_s)
        except RemoteTooLate:
            await self._until(await self._down.send(_CALL_BYTES))
            raise
        await self._until(ready_s)
        self._cloud.tell(response, now_s=self._loop.time())
        await self._until(await self._down.send(response.ByteSize() + _CALL_BYTES))
        await self._effort()
        return response

    async def _infer_in_pieces(
        self, requests: Sequence[pb.ModelInferRequest], timeout_s: float
    ) -> pb.ModelInferResponse:
        """The cloud's clock begins with the call's first bytes; it waits as the real one does."""
        began_s = self._loop.time()
        await self._effort()
        came: list[int] = []
        begun_s = await self._up.send(_CALL_BYTES)
        sending = asyncio.ensure_future(self._send_pieces(requests, came))
        try:
            await self._until(begun_s)
            asked = messages.get_parameters(requests[0].parameters)
            keep_s = (messages.number(asked, messages.WAY_BACK_MS) or 0.0) / 1e3
            while not sending.done():
                now_s = self._loop.time()
                needs_s = keep_s + self._cloud.needs_s(requests[0], now_s=now_s)
                if (wait_s := begun_s + timeout_s - needs_s - now_s) <= 0.0:
                    break
                await asyncio.wait((sending,), timeout=wait_s + _TICK_S)
            now_s, came_bytes = self._loop.time(), sum(came)
            ends = self._cloud.ends(requests[0])
            layers = sum(end <= came_bytes for end in ends)
            try:
                if layers < (messages.number(asked, messages.MIN_LAYERS) or 1):
                    raise RemoteTooLate("too few layers came")
                ready_s, response = self._cloud.serve(
                    requests[0], now_s=now_s, left_s=began_s + timeout_s - now_s, layers=layers
                )
            except RemoteTooLate:
                await self._until(await self._down.send(_CALL_BYTES))
                raise
            told = Came(layers, len(ends), came_bytes, ends[-1])
            messages.set_parameters(response.parameters, told.parameters())
            await self._until(ready_s)
            self._cloud.tell(response, now_s=self._loop.time())
            await self._until(await self._down.send(response.ByteSize() + _CALL_BYTES))
        finally:
            sending.cancel()
        await self._effort()
        return response

    async def _send_pieces(self, requests: Sequence[pb.ModelInferRequest], came: list[int]) -> None:
        """One after the other into the link; notes what of the frame has come out of it."""
        arriving = []
        for request in requests:
            at_s = await self._up.send(request.ByteSize() + _PIECE_BYTES)
            size = len(request.raw_input_contents[0])
            arriving.append(asyncio.ensure_future(self._arrive(at_s, size, came)))
        await asyncio.gather(*arriving)

    async def _arrive(self, at_s: float, size_bytes: int, came: list[int]) -> None:
        await self._until(at_s)
        came.append(size_bytes)

    async def _probe(self, payload_bytes: int) -> fleet_pb2.ProbeResponse:
        await self._effort()
        await self._until(await self._up.send(payload_bytes + _CALL_BYTES))
        state = self._cloud.state(self._loop.time())
        await self._until(await self._down.send(state.ByteSize() + _CALL_BYTES))
        await self._effort()
        return state

    async def _until(self, at_s: float) -> None:
        if self._closed:
            raise RemoteUnavailable("closed")
        await asyncio.sleep(max(at_s - self._loop.time(), 0.0))

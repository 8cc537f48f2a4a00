"""The world around the agent, simulated: a small board, a link, a cloud. The agent is the real one.

The board is one processor of which a quota is used; jobs share it by weight, as Linux shares it
among threads of different niceness. The link carries packets as the laboratory's emulator does, but
what runs over it is taken to be in order and without loss, as TCP is. The cloud serves earliest
come first on a few instances, and refuses at once what it cannot finish in time.
"""

import asyncio
import math
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hybridge.devices.models import LIGHT, RESIZE_LARGE, RESIZE_LIGHT, encode_stage, head_stage
from hybridge.devices.profile import StageTime
from hybridge.edge.bench import Framed, Lit
from hybridge.edge.duration import Duration
from hybridge.edge.outlook import Waits
from hybridge.protos import fleet_pb2
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip as messages
from hybridge.shared.answer import Probabilities
from hybridge.shared.deadline import Deadline
from hybridge.shared.errors import RemoteTooLate, RemoteUnavailable
from hybridge.shared.manifest import Manifest
from hybridge.shared.plan import Plan, PlanKind
from hybridge.shared.tensor import Array

from .answers import Answers
from .link_model import Direction, Link

_SEGMENT_BYTES = 1448
_SEGMENT_HEADERS = 52
_CHUNK_BYTES = 16_384
_WINDOW_BYTES = 64_000
_PACE_S = 0.005
_CALL_BYTES = 180
"""HTTP/2 and gRPC around one message, with headers that have been sent before."""
_LIGHT_WEIGHT, _REMOTE_WEIGHT = 1024.0, 110.0
"""Linux gives these shares to nice 0 and nice 10."""
STAMP = struct.Struct("<II")


class Processor:
    """One processor, shared by weight. Times are what a job takes when it is alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: dict[asyncio.Future[None], list[float]] = {}
        self._at_s = loop.time()
        self._alarm: asyncio.TimerHandle | None = None

    async def run(self, ms: float, weight: float) -> None:
        """Returns when so much work is done. A job that is cancelled runs on, as threads do."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._advance()
        self._jobs[done] = [ms / 1e3, weight]
        self._plan()
        await asyncio.shield(done)

    def _advance(self) -> None:
        now_s = self._loop.time()
        elapsed_s, self._at_s = now_s - self._at_s, now_s
        whole = sum(weight for _, weight in self._jobs.values())
        for job in self._jobs.values():
            job[0] -= elapsed_s * job[1] / whole

    def _plan(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._jobs:
            whole = sum(weight for _, weight in self._jobs.values())
            next_s = min(left_s * whole / weight for left_s, weight in self._jobs.values())
            self._alarm = self._loop.call_later(max(next_s, 0.0), self._wake)

    def _wake(self) -> None:
        self._advance()
        for future, (left_s, _) in list(self._jobs.items()):
            if left_s <= 1e-9:
                del self._jobs[future]
                future.set_result(None)
        self._plan()


class _Lane:
    """So many jobs at a time; the others wait, earliest deadline first."""

    def __init__(self, processor: Processor, *, threads: int, weight: float) -> None:
        self._processor, self._weight, self._free = processor, weight, threads
        self._threads = threads
        self._waiting: list[tuple[float, int, asyncio.Future[None], Duration]] = []
        self._running: dict[int, tuple[float, Duration]] = {}
        self._count = 0

    async def run(self, ms: float, deadline: Deadline, expected: Duration) -> None:
        loop = asyncio.get_running_loop()
        self._count += 1
        number = self._count
        if self._free:
            self._free -= 1
        else:
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting.append((deadline.at_s, number, turn, expected))
            self._waiting.sort(key=lambda job: job[:2])
            await turn
        self._running[number] = (loop.time(), expected)
        job = asyncio.ensure_future(self._processor.run(ms, self._weight))
        job.add_done_callback(lambda _: self._done(number))
        await asyncio.shield(job)

    def wait(self, deadline: Deadline) -> Duration:
        now_s = asyncio.get_running_loop().time()
        mean = variance = 0.0
        if not self._free:
            for began_s, expected in self._running.values():
                mean += max(expected.mean_ms - (now_s - began_s) * 1e3, 0.0)
                variance += expected.variance
        for at_s, _, turn, expected in self._waiting:
            if at_s <= deadline.at_s and not turn.done():
                mean += expected.mean_ms
                variance += expected.variance
        return Duration(mean / self._threads, variance / self._threads)

    def _done(self, number: int) -> None:
        del self._running[number]
        while self._waiting:
            turn = self._waiting.pop(0)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


@dataclass(frozen=True, kw_only=True)
class Board:
    """How long stages take on the board when it does nothing else, and decoding a picture."""

    stages: dict[str, StageTime]
    decode_ms: float
    overhead_ms: float = 1.0
    """Of the agent and its service, per request and lane entered."""
    hiccup_ms: float = 8.0
    hiccups: float = 0.01
    workers: int = 2


class SimulatedBench:
    """A device that answers from the table of answers, in virtual time."""

    def __init__(self, board: Board, answers: Answers, manifest: Manifest, *, seed: int) -> None:
        loop = asyncio.get_running_loop()
        self._loop, self._board, self._answers = loop, board, answers
        self._random = random.Random(seed)
        processor = Processor(loop)
        self._decode = _Lane(processor, threads=1, weight=_LIGHT_WEIGHT)
        self._light = _Lane(processor, threads=1, weight=_LIGHT_WEIGHT)
        self._remote = _Lane(processor, threads=board.workers, weight=_REMOTE_WEIGHT)
        self._classes = manifest.classes
        self._plans = {plan: at for at, plan in enumerate(answers.plans)}

    async def decode(self, encoded: bytes, deadline: Deadline) -> Array:
        ms = self._draw(self._board.decode_ms)
        await self._decode.run(ms, deadline, Duration(ms))
        return np.array([STAMP.unpack(encoded)[0]])

    async def light(self, picture: Array, deadline: Deadline, expected: Duration) -> Lit:
        at = int(picture[0])
        stages = await self._stages((RESIZE_LIGHT, LIGHT), self._light, deadline, expected)
        sure = float(self._answers.confidence[at])
        probabilities = np.full(self._classes, (1 - sure) / (self._classes - 1), np.float32)
        probabilities[self._answers.light[at]] = sure
        return Lit(probabilities, stages)

    async def frame(
        self, picture: Array, plan: Plan, deadline: Deadline, expected: Duration
    ) -> Framed:
        at, to = int(picture[0]), self._plans[str(plan)]
        names = [RESIZE_LARGE, encode_stage(plan)]
        if plan.kind is PlanKind.SPLIT:
            names.insert(1, head_stage(plan.cut, plan.head))
        stages = await self._stages(names, self._remote, deadline, expected)
        stamp = STAMP.pack(at, to)
        return Framed(stamp.ljust(int(self._answers.sizes[at, to]), b"\0"), stages)

    def waits(self, deadline: Deadline) -> Waits:
        return Waits(light=self._light.wait(deadline), remote=self._remote.wait(deadline))

    def close(self) -> None:
        pass

    async def _stages(
        self, names: Sequence[str], lane: _Lane, deadline: Deadline, expected: Duration
    ) -> dict[str, float]:
        drawn = [self._draw(self._board.stages[name].p50_ms) for name in names]
        began_s = self._loop.time()
        waited = lane.wait(deadline).mean_ms
        await lane.run(sum(drawn) + self._board.overhead_ms, deadline, expected)
        took_ms = max((self._loop.time() - began_s) * 1e3 - waited, sum(drawn))
        stretched = took_ms / sum(drawn)
        return {name: ms * stretched for name, ms in zip(names, drawn, strict=True)}

    def _draw(self, ms: float) -> float:
        drawn = ms * math.exp(self._random.gauss(0.0, 0.12))
        if self._random.random() < self._board.hiccups:
            drawn += self._random.expovariate(1 / self._board.hiccup_ms)
        return drawn


class Pipe:
    """A direction of a link, as TCP's bytes meet it: segments in order, none lost.

    What waits before the bottleneck is bounded by a window, as congestion control does; the rest
    stays with the sender, who may still give it up. What the model would drop comes one round trip
    later instead, and all that follows behind it.
    """

    def __init__(self, direction: Direction, *, again_s: float) -> None:
        self._direction, self._again_s = direction, again_s
        self._loop = asyncio.get_running_loop()
        self._last_s = 0.0
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
                arrives_s = self._put(chunk)
            left -= chunk
        return arrives_s

    def _full_s(self) -> float:
        """How long to wait before anything more may enter the link."""
        now_s = self._loop.time()
        if now_s < self._last_s:
            return self._last_s - now_s
        waiting = self._direction.waiting_bytes(now_s)
        return _PACE_S if waiting > _WINDOW_BYTES else 0.0

    def _put(self, size_bytes: int) -> float:
        put_s, arrives_s = self._loop.time(), 0.0
        for segment in _segments(size_bytes):
            while (at_s := self._direction.put(segment + _SEGMENT_HEADERS, put_s)) is None:
                put_s += self._again_s
            arrives_s = at_s
        self._last_s = put_s
        return arrives_s


def _segments(size_bytes: int) -> list[int]:
    whole, rest = divmod(size_bytes, _SEGMENT_BYTES)
    return [_SEGMENT_BYTES] * whole + ([rest] if rest else [])


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

    def serve(
        self, request: pb.ModelInferRequest, *, now_s: float, left_s: float
    ) -> tuple[float, pb.ModelInferResponse]:
        """When the answer is ready, and the answer; RemoteTooLate if it cannot be in time."""
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
        probabilities[0, self.answers.classes[at, to]] = 1.0
        messages.add_output(response, messages.PROBABILITIES, probabilities)
        messages.set_parameters(
            response.parameters,
            {
                messages.QUEUE_MS: (start_s - now_s) * 1e3,
                messages.COMPUTE_MS: took_ms,
                messages.FORECAST_MS: self._queue_ms(now_s),
            },
        )
        return self._free_s[instance], response

    def _queue_ms(self, now_s: float) -> float:
        return max(min(self._free_s) - now_s, 0.0) * 1e3


class SimulatedConnection:
    """What the uplink holds for a connection."""

    def __init__(self, cloud: SimulatedCloud, link: Link, up: Pipe, down: Pipe) -> None:
        self._cloud, self._link, self._up, self._down = cloud, link, up, down
        self._closed = False
        self._loop = asyncio.get_running_loop()

    async def infer(
        self, request: pb.ModelInferRequest, *, timeout_s: float
    ) -> pb.ModelInferResponse:
        return await self._within(timeout_s, self._infer(request, timeout_s))

    async def probe(self, payload_bytes: int, *, timeout_s: float) -> fleet_pb2.ProbeResponse:
        return await self._within(timeout_s, self._probe(payload_bytes))

    async def close(self, *, grace_s: float | None = None) -> None:
        if grace_s is not None:
            await asyncio.sleep(grace_s)
        self._closed = True

    async def _within(self, timeout_s: float, work):  # type: ignore[no-untyped-def]
        try:
            async with asyncio.timeout(timeout_s):
                return await work
        except TimeoutError:
            raise RemoteTooLate("the deadline passed") from None

    async def _infer(
        self, request: pb.ModelInferRequest, timeout_s: float
    ) -> pb.ModelInferResponse:
        began_s = self._loop.time()
        await self._until(await self._up.send(request.ByteSize() + _CALL_BYTES))
        now_s = self._loop.time()
        left_s = began_s + timeout_s - now_s
        try:
            ready_s, response = self._cloud.serve(request, now_s=now_s, left_s=left_s)
        except RemoteTooLate:
            await self._until(await self._down.send(_CALL_BYTES))
            raise
        await self._until(ready_s)
        await self._until(await self._down.send(response.ByteSize() + _CALL_BYTES))
        return response

    async def _probe(self, payload_bytes: int) -> fleet_pb2.ProbeResponse:
        await self._until(await self._up.send(payload_bytes + _CALL_BYTES))
        state = self._cloud.state(self._loop.time())
        await self._until(await self._down.send(state.ByteSize() + _CALL_BYTES))
        return state

    async def _until(self, at_s: float) -> None:
        if self._closed:
            raise RemoteUnavailable("closed")
        await asyncio.sleep(max(at_s - self._loop.time(), 0.0))

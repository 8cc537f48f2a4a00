"""What the agent adds to a bare LiteRT call, per picture, preprocessing apart.

The bare call is set_tensor, invoke, get_tensor on an Interpreter of the same int8 file, one thread,
with the normalized tensor of the same picture. It and every way through the agent take turns, in an
order that is drawn anew each round, so that all of them meet the same load.

    in process   Agent.answer(pixels) on this process's event loop, as its caller sees it, with a
                 cloud that the router knows, weighs, and finds too far away for the budget
                 - resize_light          as the answer's steps say
                 - normalization, bare   from pixels to the model's input, in this process
                 - LiteRT, bare
    gRPC         Client.infer in this process, through the service of an edge process of its own
                 - decode, bare          JPEG only: the same call in this process
                 - resize_light, normalization and LiteRT as above

Whatever remains is ours: threads, event loop, checks, softmax, router, protobuf, gRPC, the client.
What gRPC alone takes of it is told by a peer, the shortest gRPC server around the same normalizing
and the same LiteRT call (_bare_server.py), which gets its turn too:

    shortest gRPC server    its round trip, - normalization, - LiteRT
    gRPC, pixels, beyond it Client.infer - resize_light - the shortest server's round trip

Differences are taken round by round, then their median. What the agent costs in processor time is
measured by itself (_agent_cpu.py), as is what a decision takes.
"""

import argparse
import asyncio
import contextlib
import io
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import _bare_server
import grpc
import msgspec
from _agent_cpu import LOCAL_CPU, SERVED_CPU, SPLIT_CPU, AgentCpu, ServiceCpu, split_agent
from _common import Report, Summary, Target, demo_bundle, load, machine, parser, progress, run
from _decisions import MANY_PLANS, decision_times_us
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from hybridge.cli.console import table
from hybridge.cli.demo.processes import Daemon
from hybridge.client import Client
from hybridge.devices.models import DeviceModels, Pixels, measure_stages
from hybridge.devices.pixel_input import PixelInput
from hybridge.edge.agent import Agent
from hybridge.edge.bench import DeviceBench
from hybridge.edge.connection import GrpcConnection
from hybridge.edge.selftest import golden_picture
from hybridge.edge.stage_times import StageTimes
from hybridge.edge.uplink import Uplink
from hybridge.protos import fleet_pb2
from hybridge.shared.bundle import Bundle
from hybridge.shared.daemon import keep_what_is_there
from hybridge.shared.deadline import Deadline, monotonic
from hybridge.shared.picture import decode_picture
from hybridge.shared.security import Address, Security
from hybridge.shared.tensor import Array

IN_PROCESS = "in process"
GRPC_PIXELS = "gRPC, pixels"
GRPC_JPEG = "gRPC, JPEG"
PEER = "shortest gRPC server"
BEYOND_PEER = "gRPC, pixels, beyond the shortest gRPC server"
BOUND_MS, CPU_BOUND_MS = 1.0, 0.5
CHOICE_BOUND_US = 50.0
BUDGET_MS = 10_000.0
"""So much that no deadline ever decides."""
NEAR_BUDGET_MS = 40.0
"""So much less than the way to the cloud and back that no ageing of the link makes up for it."""
RTT_MS, BYTES_PER_MS = 151.0, 1_400.0
JPEG_QUALITY = 90
ROUNDS, QUICK_ROUNDS = 1_000, 200
WARM_UP = 30

Turn = Callable[[], Awaitable[None] | None]


@dataclass
class Times:
    """One way through the agent: milliseconds, round by round."""

    whole: list[float] = field(default_factory=list)
    agent: list[float] = field(default_factory=list)
    resize: list[float] = field(default_factory=list)
    light: list[float] = field(default_factory=list)

    def add(self, *, whole_ms: float, agent_ms: float, steps_ms: dict[str, float]) -> None:
        self.whole.append(whole_ms)
        self.agent.append(agent_ms)
        self.resize.append(steps_ms["resize_light"])
        self.light.append(steps_ms["light"])

    def clear(self) -> None:
        for column in (self.whole, self.agent, self.resize, self.light):
            column.clear()


def without(whole: Sequence[float], *parts: Sequence[float]) -> list[float]:
    """What is left of every round when its parts are taken off, in ms.

    >>> without([3.0, 4.0], [1.0, 1.5], [0.5, 0.5])
    [1.5, 2.0]
    """
    return [total - sum(rest) for total, *rest in zip(whole, *parts, strict=True)]


@dataclass
class Taken:
    """All turns of all rounds, in ms."""

    ways: dict[str, Times] = field(
        default_factory=lambda: {name: Times() for name in (IN_PROCESS, GRPC_PIXELS, GRPC_JPEG)}
    )
    decode: list[float] = field(default_factory=list)
    normalize: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)

    def clear(self) -> None:
        for way in self.ways.values():
            way.clear()
        for column in (self.decode, self.normalize, self.bare, self.peer):
            column.clear()

    def decode_of(self, name: str) -> list[float]:
        return self.decode if name == GRPC_JPEG else [0.0] * len(self.decode)

    def overheads(self) -> dict[str, list[float]]:
        """What each way adds, round by round."""
        pixels = self.ways[GRPC_PIXELS]
        found = {
            name: without(way.whole, self.decode_of(name), way.resize, self.normalize, self.bare)
            for name, way in self.ways.items()
        }
        found[PEER] = without(self.peer, self.normalize, self.bare)
        found[BEYOND_PEER] = without(pixels.whole, pixels.resize, self.peer)
        return found


class Bare:
    """LiteRT without us."""

    def __init__(self, bundle: Bundle, pixels: Pixels) -> None:
        light = bundle.manifest.light
        self._model = Interpreter(model_path=str(bundle.file(light.blob)), num_threads=1)
        self._model.allocate_tensors()
        (taken,), (made,) = self._model.get_input_details(), self._model.get_output_details()
        self._input, self._output = taken["index"], made["index"]
        scale, zero_point = taken["quantization"]
        self._as_input = PixelInput(
            light.preprocessing.spec, taken["dtype"], scale=scale, zero_point=zero_point
        )
        self.pixels = pixels.tobytes()
        self._pixels = pixels
        self._tensor = self.normalize()

    def normalize(self) -> Array:
        return self._as_input(self._pixels)

    def light(self) -> Array:
        self._model.set_tensor(self._input, self._tensor)
        self._model.invoke()
        return cast(Array, self._model.get_tensor(self._output))


def measure(options: argparse.Namespace) -> Report:
    load_before = load()
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    bundle = demo_bundle()
    models = DeviceModels(bundle)
    buffer = io.BytesIO()
    picture = Image.fromarray(models.resize_light(golden_picture(bundle)))
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    jpeg = buffer.getvalue()
    with (
        _local_agent(models) as agent,
        _edge(bundle) as client,
        _shortest_server(bundle) as peer,
    ):
        taken = asyncio.run(_measure(models, agent, client, peer, jpeg, rounds=rounds))
        cpu_ms = asyncio.run(_cpu(models, agent, decode_picture(jpeg), rounds=rounds // 4))
        routing_us = decision_times_us(agent)
    return _report(bundle, taken, cpu_ms, routing_us, rounds=rounds, load_before=load_before)


async def _cpu(
    models: DeviceModels, agent: Agent, pixels: Pixels, *, rounds: int
) -> dict[str, list[float]]:
    """The agent's own processor time per request, in ms, by the kind of answer."""
    splitting, uplink = await split_agent(models, agent.times, pixels)
    local = agent, models, pixels, agent.local.plan, NEAR_BUDGET_MS
    kinds = {
        LOCAL_CPU: AgentCpu(*local),
        SPLIT_CPU: splitting,
        SERVED_CPU: ServiceCpu(*local),
    }
    keep_what_is_there()
    turns = [turn for each in kinds.values() for turn in (each.answers, each.stages)]
    try:
        await take_turns("warming up", turns, rounds=WARM_UP // 4)
        for each in kinds.values():
            each.clear()
        await take_turns("processor time", turns, rounds=rounds)
    finally:
        splitting.agent.close()
        await uplink.shutdown()
    return {name: each.own_ms() for name, each in kinds.items()}


async def _measure(
    models: DeviceModels,
    agent: Agent,
    client: Client,
    peer: Callable[[bytes], bytes],
    jpeg: bytes,
    *,
    rounds: int,
) -> Taken:
    """Everything that takes turns. What blocks the loop blocks nothing else: each turn is alone."""
    pixels = decode_picture(jpeg)
    bare = Bare(models.bundle, models.resize_light(pixels))
    taken = Taken()

    async def in_process() -> None:
        start_ns = time.perf_counter_ns()
        deadline = Deadline.after_ms(NEAR_BUDGET_MS, now_s=monotonic())
        answer = await agent.answer(pixels, deadline)
        taken.ways[IN_PROCESS].add(
            whole_ms=_since_ms(start_ns), agent_ms=answer.total_ms, steps_ms=answer.steps_ms
        )

    def over_grpc(name: str, shown: bytes | Pixels) -> None:
        start_ns = time.perf_counter_ns()
        answer = client.infer(shown, budget_ms=BUDGET_MS)
        taken.ways[name].add(
            whole_ms=_since_ms(start_ns), agent_ms=answer.total_ms, steps_ms=answer.steps_ms
        )

    turns: list[Turn] = [
        lambda: taken.decode.append(_time_ms(lambda: decode_picture(jpeg))),
        lambda: taken.normalize.append(_time_ms(bare.normalize)),
        lambda: taken.bare.append(_time_ms(bare.light)),
        lambda: taken.peer.append(_time_ms(lambda: peer(bare.pixels))),
        in_process,
        lambda: over_grpc(GRPC_PIXELS, pixels),
        lambda: over_grpc(GRPC_JPEG, jpeg),
    ]
    await take_turns("warming up", turns, rounds=WARM_UP)
    taken.clear()
    await take_turns("taking turns", turns, rounds=rounds)
    return taken


async def take_turns(what: str, turns: Sequence[Turn], *, rounds: int) -> None:
    """Each once a round, in a new order each round (seeded)."""
    order = random.Random(0)
    with progress(what, rounds) as advance:
        for _ in range(rounds):
            for turn in order.sample(turns, len(turns)):
                waited_for = turn()
                if waited_for is not None:
                    await waited_for
            advance()


def _report(
    bundle: Bundle,
    taken: Taken,
    cpu_ms: dict[str, list[float]],
    routing_us: dict[str, Summary],
    *,
    rounds: int,
    load_before: float,
) -> Report:
    left = taken.overheads()
    parts = {name: _parts(taken, name, left[name]) for name in taken.ways}
    return Report(
        benchmark="agent_overhead",
        targets=[
            Target.at_most(
                f"added to a bare LiteRT call: {name}",
                round(Summary.of(left[name]).median, 4),
                unit="ms",
                bound=BOUND_MS,
            )
            for name in (IN_PROCESS, GRPC_PIXELS, GRPC_JPEG, BEYOND_PEER)
        ]
        + [
            Target.at_most(
                f"the agent's own CPU: {name}",
                round(Summary.of(samples).median, 4),
                unit="ms",
                bound=CPU_BOUND_MS,
            )
            for name, samples in cpu_ms.items()
        ]
        + [
            Target.at_most(
                MANY_PLANS,
                round(routing_us[MANY_PLANS].median, 1),
                unit="µs",
                bound=CHOICE_BOUND_US,
            )
        ],
        figures={
            "rounds": rounds,
            "bundle_sha256": bundle.sha256,
            "overhead_ms": {name: asdict(Summary.of(samples)) for name, samples in left.items()},
            "parts_ms": {
                name: {part.strip(" -=+"): value.median for part, value in column.items()}
                for name, column in parts.items()
            },
            "cpu_ms": {name: asdict(Summary.of(samples)) for name, samples in cpu_ms.items()},
            "routing_us": {name: asdict(value) for name, value in routing_us.items()},
        },
        samples={
            "bare_ms": _rounded(taken.bare),
            "overhead_ms": {name: _rounded(samples) for name, samples in left.items()},
            "cpu_ms": {name: _rounded(samples) for name, samples in cpu_ms.items()},
        },
        machine=machine(load_before=load_before),
        tables=[
            table(
                "where the time goes, ms: median [95 % interval]",
                ("", *parts),
                [
                    (part, *(str(column[part]) for column in parts.values()))
                    for part in parts[IN_PROCESS]
                ],
            ),
            table(
                "gRPC without us, ms: median [95 % interval]",
                ("", "ms"),
                [(name, str(Summary.of(left[name]))) for name in (PEER, BEYOND_PEER)],
            ),
            table(
                "the agent's own processor time, ms a request: median [95 % interval]",
                ("", "ms"),
                [(name, str(Summary.of(samples))) for name, samples in cpu_ms.items()],
            ),
            table(
                "deciding, µs: median [95 % interval]",
                ("", "µs"),
                [(name, str(value)) for name, value in routing_us.items()],
            ),
        ],
    )


def _parts(taken: Taken, name: str, left: Sequence[float]) -> dict[str, Summary]:
    """One way's time, part by part; those marked + make up the overhead, medians nearly so."""
    way = taken.ways[name]
    decode = taken.decode_of(name)
    columns = {
        "whole": way.whole,
        "- decode, bare": decode,
        "- resize": way.resize,
        "- normalization, bare": taken.normalize,
        "- LiteRT, bare": taken.bare,
        "= overhead": left,
        "  + around the agent (client, gRPC, service)": without(way.whole, way.agent),
        "  + in the agent (loop, threads, router)": without(
            way.agent, decode, way.resize, way.light
        ),
        "  + around LiteRT (checks, copies, softmax, cold caches)": without(
            way.light, taken.normalize, taken.bare
        ),
    }
    return {part: Summary.of(samples) for part, samples in columns.items()}


@contextlib.contextmanager
def _local_agent(models: DeviceModels) -> Iterator[Agent]:
    """An agent in this process that knows a cloud far away."""
    stages = measure_stages(models, golden_picture(models.bundle), runs=3)
    agent = Agent(
        models.bundle,
        bench=DeviceBench(models, clock=monotonic, workers=2),
        times=StageTimes(stages),
        uplink=_known_uplink(models.bundle),
        clock=monotonic,
    )
    try:
        yield agent
    finally:
        agent.close()


@contextlib.contextmanager
def _edge(bundle: Bundle) -> Iterator[Client]:
    """A client of an edge that runs alone, in a process of its own."""
    arguments = ["--bundle", str(bundle.path), "--listen", "127.0.0.1:0", "--alone"]
    with (
        tempfile.TemporaryDirectory(prefix="hybridge-benchmark-") as folder,
        Daemon("edge", arguments, log=Path(folder) / "edge.log") as edge,
        Client(str(edge.address)) as client,
    ):
        client.wait_until_loaded(bundle.manifest.name)
        yield client


@contextlib.contextmanager
def _shortest_server(bundle: Bundle) -> Iterator[Callable[[bytes], bytes]]:
    """A call to the bare gRPC server, in a process of its own."""
    light = bundle.manifest.light
    spec = msgspec.json.encode(light.preprocessing.spec).decode()
    with subprocess.Popen(
        [sys.executable, _bare_server.__file__, spec, str(bundle.file(light.blob))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = Address("127.0.0.1", int(process.stdout.readline()))
        with Security().blocking_channel(address) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
            call = channel.unary_unary(_bare_server.METHOD)
            yield lambda pixels: call(pixels, timeout=BUDGET_MS / 1e3)


def _known_uplink(bundle: Bundle) -> Uplink:
    """An uplink that has seen its fill of exchanges; it is never connected."""
    manifest = bundle.manifest
    nobody = Address("127.0.0.1", 1)
    uplink = Uplink(
        lambda: GrpcConnection(nobody, security=Security(), model=manifest.name),
        clock=monotonic,
        name=str(nobody),
    )
    uplink.breaker.succeed()
    ended_s = monotonic()
    for number in range(24, 0, -1):
        size_bytes = 150 if number % 2 else 24_000
        began_s = ended_s - number
        exchange = uplink.link.begin(size_bytes, now_s=began_s)
        took_ms = RTT_MS + size_bytes / BYTES_PER_MS
        uplink.link.finish(exchange, now_s=began_s + took_ms / 1e3)
    state = fleet_pb2.ProbeResponse(queue_forecast_ms=1.0)
    for contract in (manifest.large.pixels, *(cut.contract for cut in manifest.large.cuts)):
        state.tails.add(contract=contract.id, compute_p50_ms=20.0, compute_p95_ms=20.0)
    uplink.cloud.learn(state, now_s=ended_s)
    return uplink


def _time_ms(work: Callable[[], object]) -> float:
    start_ns = time.perf_counter_ns()
    work()
    return _since_ms(start_ns)


def _since_ms(start_ns: int) -> float:
    return (time.perf_counter_ns() - start_ns) / 1e6


def _rounded(samples: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in samples]


def main(arguments: Sequence[str] | None = None) -> int:
    return run(measure, parser(__doc__ or "").parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())

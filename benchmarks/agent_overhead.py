"""What the agent adds to a bare LiteRT call, per picture, preprocessing apart.

The bare call is set_tensor, invoke, get_tensor on an Interpreter of the same int8 file, one thread,
with the normalized tensor of the same picture. It, the bare normalization and every way through the
agent take turns, in an order that is drawn anew each round, so that all of them meet the same load.

    in process   Agent.answer(pixels) in this process, as its caller sees it
                 - resize_light          as the answer's steps say
                 - normalization, bare   the bundle's `normalize`, called in this process
                 - LiteRT, bare
    gRPC         Client.infer in this process, through the service of an edge process of its own
                 - decode, resize_light  as the answer's steps say (decode: JPEG only)
                 - normalization, bare
                 - LiteRT, bare

Whatever remains is ours: threads, event loop, checks, softmax, router, protobuf, gRPC, the client.
Differences are taken round by round, then their median.
"""

import argparse
import asyncio
import contextlib
import io
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from _common import Report, Summary, Target, demo_bundle, load, machine, parser, progress, run
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from hybridge.cli.console import table
from hybridge.cli.demo.processes import Daemon
from hybridge.client import Client
from hybridge.devices.models import DeviceModels, Pixels, measure_stages
from hybridge.edge.agent import Agent
from hybridge.edge.router import choose
from hybridge.edge.selftest import golden_picture
from hybridge.edge.stage_times import StageTimes
from hybridge.edge.uplink import Uplink
from hybridge.protos import fleet_pb2
from hybridge.shared.bundle import Bundle
from hybridge.shared.deadline import Deadline, monotonic
from hybridge.shared.picture import decode_picture
from hybridge.shared.security import Address, Security
from hybridge.shared.tensor import Array

BOUND_MS = 1.0
BUDGET_MS = 10_000.0
"""So much that no deadline ever decides."""
JPEG_QUALITY = 90
ROUNDS, QUICK_ROUNDS = 1_500, 300
WARM_UP = 30
DECISIONS = 2_000


@dataclass
class Times:
    """One way through the agent: milliseconds, round by round."""

    whole: list[float] = field(default_factory=list)
    agent: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    resize: list[float] = field(default_factory=list)
    light: list[float] = field(default_factory=list)

    def add(self, *, whole_ms: float, agent_ms: float, steps_ms: dict[str, float]) -> None:
        self.whole.append(whole_ms)
        self.agent.append(agent_ms)
        self.decode.append(steps_ms.get("decode", 0.0))
        self.resize.append(steps_ms["resize_light"])
        self.light.append(steps_ms["light"])


def overhead(times: Times, *, normalize: Sequence[float], bare: Sequence[float]) -> list[float]:
    """What is left of every round when all that is not ours is taken off, in ms."""
    columns = (times.whole, times.decode, times.resize, normalize, bare)
    return [
        whole - decode - resize - normal - litert
        for whole, decode, resize, normal, litert in zip(*columns, strict=True)
    ]


class Bare:
    """LiteRT without us."""

    def __init__(self, bundle: Bundle, pixels: Pixels) -> None:
        light = bundle.manifest.light
        self._normalize = Interpreter(
            model_path=str(bundle.file(light.preprocessing.blob)), num_threads=1
        ).get_signature_runner("normalize")
        self._pixels = pixels[None]
        self._tensor = self.normalize()
        self._model = Interpreter(model_path=str(bundle.file(light.blob)), num_threads=1)
        self._model.allocate_tensors()
        self._input = self._model.get_input_details()[0]["index"]
        self._output = self._model.get_output_details()[0]["index"]

    def normalize(self) -> Array:
        (tensor,) = self._normalize(pixels=self._pixels).values()
        return cast(Array, tensor)

    def light(self) -> Array:
        self._model.set_tensor(self._input, self._tensor)
        self._model.invoke()
        return cast(Array, self._model.get_tensor(self._output))


def measure(options: argparse.Namespace) -> Report:
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    load_before = load()
    bundle = demo_bundle()
    models = DeviceModels(bundle)
    size = bundle.manifest.light.preprocessing.spec.size_px
    buffer = io.BytesIO()
    picture = Image.fromarray(models.resize_light(golden_picture(bundle)))
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    jpeg = buffer.getvalue()
    pixels = cast(Pixels, decode_picture(jpeg))
    bare = Bare(bundle, models.resize_light(pixels))
    times = {"in process": Times(), "gRPC, pixels": Times(), "gRPC, JPEG": Times()}
    normalize_ms: list[float] = []
    bare_ms: list[float] = []
    with _local_agent(models) as (agent, loop), _edge(bundle) as client:

        def in_process() -> None:
            deadline = Deadline.after_ms(BUDGET_MS, now_s=monotonic())
            start_ns = time.perf_counter_ns()
            answer = loop.run_until_complete(agent.answer(pixels, deadline))
            whole_ms = _since_ms(start_ns)
            times["in process"].add(
                whole_ms=whole_ms, agent_ms=answer.total_ms, steps_ms=answer.steps_ms
            )

        def over_grpc(name: str, shown: bytes | Pixels) -> None:
            start_ns = time.perf_counter_ns()
            answer = client.infer(shown, budget_ms=BUDGET_MS)
            whole_ms = _since_ms(start_ns)
            times[name].add(whole_ms=whole_ms, agent_ms=answer.total_ms, steps_ms=answer.steps_ms)

        turns: list[Callable[[], None]] = [
            lambda: normalize_ms.append(_time_ms(bare.normalize)),
            lambda: bare_ms.append(_time_ms(bare.light)),
            in_process,
            lambda: over_grpc("gRPC, pixels", pixels),
            lambda: over_grpc("gRPC, JPEG", jpeg),
        ]
        _take_turns(turns, rounds=rounds)
        routing_us = _routing_us(agent, bundle)
    left = {
        name: overhead(way, normalize=normalize_ms, bare=bare_ms) for name, way in times.items()
    }
    targets = [
        Target.at_most(
            f"the agent adds to a bare LiteRT call: {name}",
            Summary.of(samples).median,
            unit="ms",
            bound=BOUND_MS,
        )
        for name, samples in left.items()
    ]
    parts = {
        name: _parts(way, left[name], normalize_ms=normalize_ms, bare_ms=bare_ms)
        for name, way in times.items()
    }
    return Report(
        benchmark="agent_overhead",
        targets=targets,
        figures={
            "picture": f"{size}x{size}, JPEG of {len(jpeg)} bytes",
            "rounds": rounds,
            "parts_ms": {
                name: {part: str(value) for part, value in column.items()}
                for name, column in parts.items()
            },
            "routing_us": {name: str(value) for name, value in routing_us.items()},
        },
        samples={
            "bare_ms": _rounded(bare_ms),
            "normalize_ms": _rounded(normalize_ms),
            "overhead_ms": {name: _rounded(samples) for name, samples in left.items()},
        },
        machine=machine(load_before=load_before),
        tables=[
            table(
                "where the time goes, ms: median [95 % interval]",
                ("", *parts),
                [
                    (part, *(str(column[part]) for column in parts.values()))
                    for part in next(iter(parts.values()))
                ],
            ),
            table(
                "deciding, µs: median [95 % interval]",
                ("", "µs"),
                [(name, str(value)) for name, value in routing_us.items()],
            ),
        ],
    )


def _parts(
    way: Times, left: Sequence[float], *, normalize_ms: Sequence[float], bare_ms: Sequence[float]
) -> dict[str, Summary]:
    """One way's time, part by part; those marked + make up the overhead, medians nearly so."""
    rows = list(zip(way.whole, way.agent, way.decode, way.resize, way.light, strict=True))
    inner = zip(way.light, normalize_ms, bare_ms, strict=True)
    return {
        "whole": Summary.of(way.whole),
        "- decode": Summary.of(way.decode),
        "- resize": Summary.of(way.resize),
        "- normalization, bare": Summary.of(normalize_ms),
        "- LiteRT, bare": Summary.of(bare_ms),
        "= overhead": Summary.of(left),
        "  + around the agent (client, gRPC, service)": Summary.of(
            [whole - agent for whole, agent, *_ in rows]
        ),
        "  + in the agent (loop, threads, router)": Summary.of(
            [agent - decode - resize - light for _, agent, decode, resize, light in rows]
        ),
        "  + around LiteRT (checks, copies, softmax, cold caches)": Summary.of(
            [light - normal - litert for light, normal, litert in inner]
        ),
    }


def _take_turns(turns: Sequence[Callable[[], None]], *, rounds: int) -> None:
    """Each once a round, in a new order each round (seeded)."""
    order = random.Random(0)
    with progress("taking turns", rounds) as advance:
        for _ in range(rounds):
            for turn in order.sample(turns, len(turns)):
                turn()
            advance()


@contextlib.contextmanager
def _local_agent(models: DeviceModels) -> "Iterator[tuple[Agent, asyncio.AbstractEventLoop]]":
    """An agent without a cloud in this process, and the loop it runs on."""
    stages = measure_stages(models, golden_picture(models.bundle), runs=3)
    agent = Agent(models, times=StageTimes(stages), uplink=None, clock=monotonic, workers=2)
    loop = asyncio.new_event_loop()
    try:
        yield agent, loop
    finally:
        agent.close()
        loop.close()


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


def _routing_us(agent: Agent, bundle: Bundle) -> dict[str, Summary]:
    """What deciding costs, in µs: without a cloud, then with one whose link is well known."""
    found = _decisions(agent, "alone")
    agent.uplink = _known_uplink(bundle)
    found |= _decisions(agent, "with a cloud")
    agent.uplink = None
    return found


def _decisions(agent: Agent, name: str) -> dict[str, Summary]:
    options = agent.options()
    outlook_ms, choice_ms = [], []
    for _ in range(DECISIONS):
        outlook_ms.append(_time_ms(agent.options))
        choice_ms.append(_time_ms(lambda: choose(options, left_ms=100.0)))
    plans = f"{len(options)} plans, {name}"
    return {
        f"options() of {plans}": Summary.of([ms * 1e3 for ms in outlook_ms]),
        f"choose() among {plans}": Summary.of([ms * 1e3 for ms in choice_ms]),
    }


def _known_uplink(bundle: Bundle) -> Uplink:
    """An uplink that has seen its fill of exchanges; it is never connected."""
    manifest = bundle.manifest
    uplink = Uplink(
        Address("127.0.0.1", 1), security=Security(), model=manifest.name, clock=monotonic
    )
    uplink.breaker.succeed()
    for number in range(24):
        size_bytes = 0 if number % 2 else 24_000
        uplink.link.observe(size_bytes, 51 + size_bytes / 1_400, now_s=monotonic())
    state = fleet_pb2.ProbeResponse(queue_forecast_ms=1.0)
    for contract in (manifest.large.pixels, *(cut.contract for cut in manifest.large.cuts)):
        state.tails.add(contract=contract.id, compute_p95_ms=20.0)
    uplink.cloud.learn(state)
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
    options_parser = parser(__doc__ or "")
    options_parser.add_argument("--rounds", type=int, default=0, help=argparse.SUPPRESS)
    return run(measure, options_parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())

"""What more processes give: threads of one, processes beneath it, actors of a Ray cluster.

One client with one connection, as an edge is; it works on the same cores. A worker is killed in
the middle. Beside that, how the kernel spreads few connections over listeners of one port, which
is why all workers stand behind one front instead.
"""

import argparse
import asyncio
import collections
import contextlib
import importlib.util
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from _common import Summary, Target

from hybridge.cli.console import notes, table
from hybridge.shared.errors import ConfigError

from .client import closed_loop, infer_caller
from .findings import Asked, Findings
from .hop import SIZES_BYTES
from .models import MOBILE_UINT8, Store, make_models
from .processes import ServerProcess, cloud

CONCURRENCY = 8
AT_LEAST_TIMES = 1.25
ASKED: Sequence[Asked] = ()
_LOCAL = {
    "1 thread": ("--instances", "1"),
    "2 threads": ("--instances", "2"),
    "1 worker": ("--workers", "1", "--instances", "1"),
    "2 workers": ("--workers", "2", "--instances", "1"),
}
_RAY = {
    f"{count} Ray actor{'s'[: count - 1]}": (
        *("--engine", "ray", "--workers", str(count), "--least-workers", str(count)),
        *("--instances", "1"),
    )
    for count in (1, 2)
}
_LOG = Path(os.devnull)
_HOP = Path(__file__).with_name("hop.py")
_CONNECTIONS = (1, 2, 4, 8, 32)
_TRIALS = 200


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--growth-ways", default="", metavar="WAYS", help=f"of {', '.join(_LOCAL | _RAY)} (all)"
    )


def measure(options: argparse.Namespace) -> Findings:
    store = make_models()
    seconds, rounds = (2.0, 1) if options.quick else (3.0, 3)
    ways, said = _ways(options.growth_ways)
    rps: dict[str, list[float]] = {name: [] for name in ways}
    p50_ms: dict[str, list[float]] = {name: [] for name in ways}
    p95_ms: dict[str, list[float]] = {name: [] for name in ways}
    cpu_ms: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, arguments in ways.items():
            notes.print(f"growth: {name}, round {number + 1} of {rounds}")
            with cloud(store.bundles(MOBILE_UINT8), *arguments, log=_LOG) as running:
                seen = asyncio.run(_throughput(running, seconds))
            for kept, value in zip((rps, p50_ms, p95_ms, cpu_ms), seen, strict=True):
                kept[name].append(value)
    death = _death(store, seconds)
    hops = {kind: _hop_ms(kind) for kind in _hop_kinds(ways)}
    spread = {count: _spread(count) for count in _CONNECTIONS}
    return Findings(
        targets=[
            *_gain(rps),
            Target.at_most(
                "growth: requests that failed when one of two workers was killed",
                death["failed"],
                unit="",
                bound=0,
            ),
        ],
        figures={
            "ways": {
                name: {
                    "rps": round(statistics.median(rps[name]), 1),
                    "p50_ms": round(statistics.median(p50_ms[name]), 2),
                    "p95_ms": round(statistics.median(p95_ms[name]), 2),
                    "cpu_ms": round(statistics.median(cpu_ms[name]), 2),
                }
                for name in ways
            },
            "killed": death,
            "hop_p50_ms": {
                kind: {size: round(statistics.median(took), 3) for size, took in sizes.items()}
                for kind, sizes in hops.items()
            },
            "busiest_of_two_listeners": spread,
        },
        samples={"rps": rps, "p50_ms": p50_ms, "p95_ms": p95_ms, "cpu_ms": cpu_ms, "hop_ms": hops},
        tables=[
            table(
                f"{MOBILE_UINT8.name}, {CONCURRENCY} at a time over one connection",
                ("computed by", "requests/s", "p50 ms", "p95 ms", "server CPU ms"),
                [
                    (
                        name,
                        *(str(Summary.of(kept[name])) for kept in (rps, p50_ms, p95_ms, cpu_ms)),
                    )
                    for name in ways
                ],
            ),
            table(
                "the way of a batch there and back, ms: p10, p50, p90",
                ("to", *(f"{size:,} bytes" for size in SIZES_BYTES)),
                [
                    (kind, *(_quantiles(sizes[str(size)]) for size in SIZES_BYTES))
                    for kind, sizes in hops.items()
                ],
            ),
            table(
                "SO_REUSEPORT, two listeners: share of the connections that the busier one has",
                ("connections", "mean", "share of trials with all on one"),
                [
                    (str(count), f"{each['mean']:.2f}", f"{each['all_on_one']:.2f}")
                    for count, each in spread.items()
                ],
            ),
        ],
        notes=said,
    )


def _ways(names: str) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """What is to be measured, and what is to be said of the rest."""
    every = {**_LOCAL, **_RAY}
    chosen = names.split(",") if names else list(every)
    if unknown := [name for name in chosen if name not in every]:
        raise ConfigError(f"--growth-ways {unknown[0]!r} is none of {', '.join(every)}")
    if importlib.util.find_spec("ray") is not None:
        return {name: every[name] for name in chosen}, []
    there = {name: every[name] for name in chosen if name not in _RAY}
    return there, ["growth: Ray was not measured: it is not installed"]


def _gain(rps: Mapping[str, Sequence[float]]) -> list[Target]:
    """Two workers against one, round by round."""
    rounds = zip(rps.get("1 worker", ()), rps.get("2 workers", ()), strict=False)
    ratios = [two / one for one, two in rounds]
    if not ratios:
        return []
    return [
        Target.at_least(
            "growth: throughput of two workers against one",
            statistics.median(ratios),
            unit="x",
            bound=AT_LEAST_TIMES,
        )
    ]


async def _throughput(running: ServerProcess, s: float) -> tuple[float, float, float, float]:
    """Requests a second, their p50 and p95 in ms, and server CPU per request in ms."""
    caller = infer_caller(running.address, MOBILE_UINT8)
    try:
        await closed_loop(caller, concurrency=CONCURRENCY, seconds=1.0)  # warms up
        before_s = running.cpu_s
        seen = await closed_loop(caller, concurrency=CONCURRENCY, seconds=s)
        spent_ms = (running.cpu_s - before_s) * 1e3
    finally:
        await caller.close()
    return (
        seen.rps,
        seen.quantile_ms(0.5),
        seen.quantile_ms(0.95),
        spent_ms / len(seen.latencies_ms),
    )


def _hop_kinds(ways: Mapping[str, object]) -> tuple[str, ...]:
    return ("process", "ray") if any(name in _RAY for name in ways) else ("process",)


def _hop_ms(kind: str) -> dict[str, list[float]]:
    """By the size of a batch in bytes, sorted."""
    run = subprocess.run(
        [sys.executable, _HOP, kind], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    return dict(json.loads(run.stdout))


def _quantiles(took_ms: Sequence[float]) -> str:
    tenths = statistics.quantiles(took_ms, n=10)
    return f"{tenths[0]:.2f}, {tenths[4]:.2f}, {tenths[8]:.2f}"


def _death(store: Store, seconds: float) -> dict[str, Any]:
    """One of two workers is killed under load: what the requests saw."""
    with cloud(store.bundles(MOBILE_UINT8), *_LOCAL["2 workers"], log=_LOG) as running:
        return asyncio.run(_kill_one(running, seconds))


async def _kill_one(running: ServerProcess, seconds: float) -> dict[str, Any]:
    caller = infer_caller(running.address, MOBILE_UINT8)
    loop = asyncio.get_running_loop()
    codes: collections.Counter[str] = collections.Counter()
    slowest_ms = 0.0

    async def one_after_the_other(end_s: float) -> None:
        nonlocal slowest_ms
        while (sent_s := loop.time()) < end_s:
            try:
                await caller.call()
                codes["OK"] += 1
            except grpc.aio.AioRpcError as error:
                codes[error.code().name] += 1
            slowest_ms = max(slowest_ms, (loop.time() - sent_s) * 1e3)

    try:
        await closed_loop(caller, concurrency=CONCURRENCY, seconds=1.0)
        loop.call_later(seconds / 2, os.kill, _a_child(running.pid), signal.SIGKILL)
        end_s = loop.time() + seconds
        await asyncio.gather(*(one_after_the_other(end_s) for _ in range(CONCURRENCY)))
    finally:
        await caller.close()
    failed = codes.total() - codes["OK"]
    return {"failed": failed, "codes": dict(codes), "slowest_ms": round(slowest_ms, 1)}


def _a_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0])


def _spread(connections: int) -> dict[str, float]:
    """How uneven the kernel spreads so many connections over two listeners of one port."""
    shares: list[float] = []
    for _ in range(_TRIALS):
        with _listeners() as (one, other):
            with contextlib.ExitStack() as stack:
                for _ in range(connections):
                    stack.enter_context(socket.create_connection(one.getsockname()))
                counts = sorted((_accepted(one), _accepted(other)))
            shares.append(counts[1] / connections)
    return {
        "mean": statistics.mean(shares),
        "all_on_one": sum(share == 1 for share in shares) / _TRIALS,
    }


@contextlib.contextmanager
def _listeners() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.socket() as one, socket.socket() as other:
        port = 0
        for each in (one, other):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.bind(("127.0.0.1", port))
            each.listen(128)
            each.setblocking(False)
            port = one.getsockname()[1]
        yield one, other


def _accepted(listener: socket.socket) -> int:
    """Connections that wait at a listener; they are closed."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            accepted, _ = listener.accept()
            accepted.close()
            count += 1
    return count

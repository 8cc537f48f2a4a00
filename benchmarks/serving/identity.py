"""What the cloud itself costs: 16 KB in and out of a model that computes nothing."""

import argparse
import asyncio
import contextlib
import statistics
import sys
from pathlib import Path

from _common import Summary, Target

from hybridge.cli.console import table
from hybridge.protos.oip import MODEL_INFER

from .client import Caller, GrpcCaller, closed_loop, infer_caller, infer_message
from .findings import Asked, Findings
from .models import IDENTITY, make_models
from .processes import ServerProcess, cloud, server

CONCURRENCY = 32
AT_MOST_TIMES = 1.25
ASKED = [Asked("identity: server CPU of a request against a raw echo's", "x", AT_MOST_TIMES)]
_BARE = Path(__file__).with_name("bare_server.py")


def add_options(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def measure(options: argparse.Namespace) -> Findings:
    store = make_models()
    seconds, rounds = (0.5, 2) if options.quick else (3.0, 9)
    cpu_ms: dict[str, list[float]] = {"raw echo": [], "hybridge": []}
    rps: dict[str, list[float]] = {"raw echo": [], "hybridge": []}
    with contextlib.ExitStack() as stack:
        servers = {
            "raw echo": stack.enter_context(server([sys.executable, _BARE])),
            "hybridge": stack.enter_context(cloud(store.bundles(IDENTITY))),
        }
        for number in range(rounds + 1):
            for name, running in servers.items():
                spent_ms, per_s = asyncio.run(_round(running, ours=name == "hybridge", s=seconds))
                if number:  # the first warms up
                    cpu_ms[name].append(spent_ms)
                    rps[name].append(per_s)
    ratios = [a / b for a, b in zip(cpu_ms["hybridge"], cpu_ms["raw echo"], strict=True)]
    return Findings(
        targets=[
            Target.at_most(ASKED[0].name, statistics.median(ratios), unit="x", bound=AT_MOST_TIMES)
        ],
        figures={
            name: {
                "cpu_ms": round(statistics.median(cpu_ms[name]), 4),
                "rps": round(statistics.median(rps[name])),
            }
            for name in cpu_ms
        },
        samples={"cpu_ms": cpu_ms, "rps": rps},
        tables=[
            table(
                f"16 KB identity, {CONCURRENCY} at a time",
                ("server", "CPU ms", "requests/s"),
                [
                    (name, str(Summary.of(cpu_ms[name])), f"{statistics.median(rps[name]):.0f}")
                    for name in cpu_ms
                ],
            )
        ],
    )


async def _round(running: ServerProcess, *, ours: bool, s: float) -> tuple[float, float]:
    """Server CPU per request in ms, and requests a second."""
    caller: Caller
    if ours:
        caller = infer_caller(running.address, IDENTITY)
    else:
        caller = GrpcCaller(running.address, MODEL_INFER.path, infer_message(IDENTITY))
    try:
        await caller.call()
        before_s = running.cpu_s
        seen = await closed_loop(caller, concurrency=CONCURRENCY, seconds=s)
        return (running.cpu_s - before_s) * 1e3 / len(seen.latencies_ms), seen.rps
    finally:
        await caller.close()

"""How many answers a second, and how late the slowest, beside the bare sessions and the peers.

Bare is what gRPC in Python leaves of the machine: the same sessions, fed in their own process,
while the same client's requests are received and thrown away. Bare that is fed computes what came
instead: what no server that answers can do without. All servers run at once, all but one
stand still; rounds are interleaved.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _common import Target, progress
from rich.table import Table

from hybridge.cli.console import notes, table
from hybridge.protos.oip import MODEL_INFER
from hybridge.shared.errors import ConfigError
from hybridge.shared.security import Address

from . import rivals
from .client import Caller, GrpcCaller, Load, closed_loop, infer_caller, infer_message
from .findings import Asked, Findings
from .models import MOBILE_FLOAT, MOBILE_UINT8, Served, Store, make_models
from .processes import ServerProcess, cloud, server

CONCURRENCIES = (8, 32)
OF_BARE = 0.95
ASKED = [
    asked
    for served in (MOBILE_FLOAT, MOBILE_UINT8)
    for at_once in CONCURRENCIES
    for what in [f"throughput: {served.name}, {at_once} at a time"]
    for asked in (
        Asked(f"{what}, of bare", "of bare", OF_BARE),
        Asked(f"{what}, best peer", "answers/s", None),
        Asked(f"{what}, p95 of", "ms", None),
    )
]
_BARE_SERVER = Path(__file__).with_name("bare_server.py")
_OURS, _BARE, _FED = "hybridge", "bare", "bare, fed"


def add_options(parser: argparse.ArgumentParser) -> None:
    rivals.add_options(parser)


@dataclass(frozen=True)
class _Contender:
    name: str
    running: ServerProcess
    caller: Callable[[Address, Served], Caller]


@dataclass
class _Cell:
    """What one server did at one concurrency with one model, round by round."""

    rps: list[float] = field(default_factory=list)
    p95_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def add(self, load: Load, cpu_s: float) -> None:
        self.rps.append(load.rps)
        self.p95_ms.append(load.quantile_ms(0.95))
        self.cpu_ms.append(cpu_s * 1e3 / len(load.latencies_ms))


_Cells = dict[tuple[str, int, str], _Cell]


def measure(options: argparse.Namespace) -> Findings:
    store, peers = make_models(), rivals.given(options)
    seconds, rounds = (0.5, 2) if options.quick else (4.0, 5)
    cells: _Cells = {}
    missing = rivals.left_out(peers)
    for served in (MOBILE_UINT8, MOBILE_FLOAT):
        with (
            tempfile.TemporaryDirectory(prefix="hybridge-serving-") as logs,
            _contenders(served, store, peers, Path(logs), missing) as contenders,
        ):
            _rounds(served, contenders, cells, seconds=seconds, rounds=rounds)
    return Findings(
        targets=_targets(cells),
        figures=_figures(cells),
        samples={
            f"{model} x{at_once} {name}": vars(cell)
            for (model, at_once, name), cell in cells.items()
        },
        tables=[_table(cells)],
        notes=missing,
        why_not="no peer was measured: no --peer NAME=PYTHON, or none that answered",
    )


@contextlib.contextmanager
def _contenders(
    served: Served, store: Store, peers: list[rivals.Rival], logs: Path, missing: list[str]
) -> Iterator[list[_Contender]]:
    """All servers of a model, each standing still."""
    with contextlib.ExitStack() as stack:
        shape = ",".join(map(str, served.item.shape))
        files = (sys.executable, _BARE_SERVER, store.onnx(served))
        command = [*map(str, files), served.datatype, shape]
        found = [
            _Contender(_BARE, stack.enter_context(server(command)), _bare_caller),
            _Contender(_FED, stack.enter_context(server([*command, "fed"])), _bare_caller),
            _Contender(
                _OURS,
                stack.enter_context(cloud(store.bundles(served), log=logs / "hybridge.log")),
                infer_caller,
            ),
        ]
        for peer in peers:
            notes.print(f"  {served.name}: starting {peer.name}")
            try:
                running = stack.enter_context(peer.serving(served, store, logs=logs))
            except ConfigError as error:
                missing.append(f"{peer.name}: not measured: {error}")
                continue
            running.pause()
            found.append(_Contender(peer.name, running, peer.caller))
        yield found


def _bare_caller(address: Address, served: Served) -> Caller:
    return GrpcCaller(address, MODEL_INFER.path, infer_message(served))


def _rounds(
    served: Served, contenders: list[_Contender], cells: _Cells, *, seconds: float, rounds: int
) -> None:
    steps = (rounds + 1) * len(CONCURRENCIES) * len(contenders)
    with progress(served.name, steps) as advance:
        for number in range(rounds + 1):
            for at_once in CONCURRENCIES:
                for each in contenders:
                    each.running.resume()
                    load, cpu_s = asyncio.run(_one(each, served, at_once, seconds))
                    each.running.pause()
                    if number:  # the first warms up
                        cell = cells.setdefault((served.name, at_once, each.name), _Cell())
                        cell.add(load, cpu_s)
                    advance()


async def _one(
    contender: _Contender, served: Served, at_once: int, seconds: float
) -> tuple[Load, float]:
    """What was seen, and the server's processor time in it."""
    caller = contender.caller(contender.running.address, served)
    try:
        await caller.call()
        before_s = contender.running.cpu_s
        load = await closed_loop(caller, concurrency=at_once, seconds=seconds)
        return load, contender.running.cpu_s - before_s
    finally:
        await caller.close()


def _targets(cells: _Cells) -> list[Target]:
    targets = []
    for model, at_once in sorted({(model, at_once) for model, at_once, _ in cells}):
        row = {name: cell for (m, n, name), cell in cells.items() if (m, n) == (model, at_once)}
        ours, bare = row[_OURS], row[_BARE]
        shares = [a / b for a, b in zip(ours.rps, bare.rps, strict=True)]
        what = f"throughput: {model}, {at_once} at a time"
        targets.append(
            Target.at_least(
                f"{what}, of bare", statistics.median(shares), unit="of bare", bound=OF_BARE
            )
        )
        peers = {name: cell for name, cell in row.items() if name not in (_OURS, _BARE, _FED)}
        if peers:
            most = max(peers, key=lambda name: statistics.median(peers[name].rps))
            targets.append(
                Target.at_least(
                    f"{what}, best peer {most}",
                    statistics.median(ours.rps),
                    unit="answers/s",
                    bound=round(statistics.median(peers[most].rps), 1),
                )
            )
            soonest = min(peers, key=lambda name: statistics.median(peers[name].p95_ms))
            targets.append(
                Target.at_most(
                    f"{what}, p95 of {soonest}",
                    statistics.median(ours.p95_ms),
                    unit="ms",
                    bound=round(statistics.median(peers[soonest].p95_ms), 2),
                )
            )
    return targets


def _figures(cells: _Cells) -> Mapping[str, Any]:
    return {
        f"{model} x{at_once} {name}": {
            "rps": round(statistics.median(cell.rps), 1),
            "p95_ms": round(statistics.median(cell.p95_ms), 2),
            "server_cpu_ms": round(statistics.median(cell.cpu_ms), 3),
        }
        for (model, at_once, name), cell in cells.items()
    }


def _table(cells: _Cells) -> Table:
    columns = ("model", "at a time", "server", "answers/s", "p95 ms", "server CPU ms")
    rows = [
        (
            model,
            str(at_once),
            name,
            f"{statistics.median(cell.rps):.0f}",
            f"{statistics.median(cell.p95_ms):.1f}",
            f"{statistics.median(cell.cpu_ms):.2f}",
        )
        for (model, at_once, name), cell in sorted(cells.items())
    ]
    return table("throughput", columns, rows)

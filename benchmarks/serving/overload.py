"""Requests that come as they like, with deadlines: less than the server can do, and more.

Capacity is the server's own: what a closed loop gets out of it, before a load and after it, since
machines have better and worse minutes. Budgets are multiples of the time
that one request then takes a core, so that they mean the same on any machine. A request is lost
whether it was refused, answered late or not answered. The same is done to one peer, at its own
capacity, with our budgets. The client has a core of its own: on a shared one its work for what is
refused would be taken from the server's capacity, and its lateness counted as the server's.
"""

import argparse
import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
from _common import Target
from rich.table import Table

from hybridge.cli.console import notes, table
from hybridge.protos import open_inference_pb2 as pb
from hybridge.protos.oip import Stub
from hybridge.shared.security import Address

from . import rivals
from .client import Caller, Outcome, closed_loop, infer_caller, open_loop, poisson
from .cores import Cores, kept_to, started_on
from .findings import Asked, Findings
from .models import MOBILE_UINT8, Served, make_models
from .processes import cloud

BUDGETS = (8, 16, 32, 80)
LOADS = (0.8, 1.5)
MET, GOODPUT, WASTED = 0.99, 0.9, 0.01
ASKED = [
    Asked("overload: deadlines met at 80 % of capacity", "of all", MET),
    Asked("overload: goodput at 150 %, of capacity", "of capacity", GOODPUT),
    Asked("overload: computed at 150 % for nobody", "of all", WASTED),
    Asked("overload: goodput at 150 %, beside", "of capacity", None),
]
_SERVED = MOBILE_UINT8
_CONCURRENCIES = (8, 32)
_SEED = 5

MakeCaller = Callable[[Address, Served], Caller]


def add_options(parser: argparse.ArgumentParser) -> None:
    """None of its own: the peer is the first that `--peer` names."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One server under one load; `executed` is None where the server does not tell."""

    server: str
    load: float
    capacity: float
    offered: float
    met: float
    goodput: float
    executed: int | None
    in_time: int
    faults: dict[str, int]

    @property
    def wasted(self) -> float | None:
        """The share of what was computed that served nobody."""
        if not self.executed:
            return None
        return 1 - self.in_time / self.executed


def measure(options: argparse.Namespace) -> Findings:
    store, peers, cores = make_models(), rivals.given(options), Cores.shared_out()
    seconds = 2.0 if options.quick else 16.0
    cells: list[Cell] = []
    with (
        tempfile.TemporaryDirectory(prefix="hybridge-serving-") as logs,
        kept_to(cores.client),
    ):
        with started_on(
            cores.server, cloud(store.bundles(_SERVED), log=Path(logs) / "cloud.log")
        ) as running:
            capacity = asyncio.run(_first_capacity(running.address, infer_caller, seconds))
            budgets_s = [times * len(cores.server) / capacity for times in BUDGETS]
            cells += asyncio.run(
                _loads(
                    _Contender("hybridge", running.address, infer_caller, capacity),
                    seconds=seconds,
                    budgets_s=budgets_s,
                    ours=True,
                )
            )
        for peer in peers[:1]:
            notes.print(f"  the same on {peer.name}")
            with started_on(cores.server, peer.serving(_SERVED, store, logs=Path(logs))) as running:
                capacity = asyncio.run(_first_capacity(running.address, peer.caller, seconds))
                cells += asyncio.run(
                    _loads(
                        _Contender(peer.name, running.address, peer.caller, capacity),
                        seconds=seconds,
                        budgets_s=budgets_s,
                    )
                )
    return Findings(
        targets=_targets(cells),
        figures={f"{cell.server} at {cell.load:.0%}": _figures(cell) for cell in cells},
        tables=[_table(cells)],
        notes=[] if peers else ["overload: no peer beside it, no --peer NAME=PYTHON"],
        why_not="no peer beside it: no --peer NAME=PYTHON",
    )


@dataclass(frozen=True)
class _Contender:
    name: str
    address: Address
    caller: MakeCaller
    capacity: float


async def _first_capacity(address: Address, make: MakeCaller, seconds: float) -> float:
    caller = make(address, _SERVED)
    try:
        await closed_loop(caller, concurrency=_CONCURRENCIES[0], seconds=1.0)
        return await _capacity(caller, seconds)
    finally:
        await caller.close()


async def _capacity(caller: Caller, seconds: float) -> float:
    """Answers a second, at the better of two concurrencies."""
    seen = [
        await closed_loop(caller, concurrency=at_once, seconds=seconds / 4)
        for at_once in _CONCURRENCIES
    ]
    return max(load.rps for load in seen)


async def _loads(
    contender: _Contender, *, seconds: float, budgets_s: Sequence[float], ours: bool = False
) -> list[Cell]:
    address, before = contender.address, contender.capacity
    caller = contender.caller(address, _SERVED)
    cells = []
    try:
        for load in LOADS:
            arrivals = poisson(load * before, seconds=seconds, budgets_s=budgets_s, seed=_SEED)
            computed = await _executed(address) if ours else 0
            outcomes = await open_loop(caller, arrivals)
            executed = await _executed(address) - computed if ours else None
            await _quiet(caller)
            after = await _capacity(caller, seconds)
            capacity = (before + after) / 2
            cells.append(_cell(contender.name, load, capacity, seconds, outcomes, executed))
            before = after
        return cells
    finally:
        await caller.close()


async def _executed(address: Address) -> int:
    """How many inputs the cloud has computed since its start, by its own statistics."""
    async with grpc.aio.insecure_channel(str(address)) as channel:
        found = await Stub(channel).ModelStatistics(pb.ModelStatisticsRequest(name=_SERVED.name))
    return sum(
        batch.batch_size * batch.compute_infer.count
        for model in found.model_stats
        for batch in model.batch_stats
    )


async def _quiet(caller: Caller) -> None:
    """Returns once the server answers again, so that no load inherits the last one's queue."""
    with contextlib.suppress(OSError, grpc.aio.AioRpcError):
        await caller.call()
    await caller.call()


def _cell(
    name: str,
    load: float,
    capacity: float,
    seconds: float,
    outcomes: Sequence[Outcome],
    executed: int | None,
) -> Cell:
    in_time = sum(each.in_time for each in outcomes)
    return Cell(
        server=name,
        load=load,
        capacity=capacity,
        offered=len(outcomes) / seconds,
        met=in_time / len(outcomes),
        goodput=in_time / seconds,
        executed=executed,
        in_time=in_time,
        faults=dict(Counter(each.fault or "late" for each in outcomes if not each.in_time)),
    )


def _targets(cells: Sequence[Cell]) -> list[Target]:
    low, high, *of_peer = cells
    assert high.wasted is not None
    return [
        Target.at_least(
            "overload: deadlines met at 80 % of capacity", low.met, unit="of all", bound=MET
        ),
        Target.at_least(
            "overload: goodput at 150 %, of capacity",
            high.goodput / high.capacity,
            unit="of capacity",
            bound=GOODPUT,
        ),
        Target.at_most(
            "overload: computed at 150 % for nobody", high.wasted, unit="of all", bound=WASTED
        ),
        *(
            Target.at_least(
                f"overload: goodput at 150 %, beside {peer.server}",
                high.goodput / high.capacity,
                unit="of capacity",
                bound=round(peer.goodput / peer.capacity, 3),
            )
            for peer in of_peer[1:]
        ),
    ]


def _figures(cell: Cell) -> dict[str, Any]:
    return {**asdict(cell), "wasted": cell.wasted}


def _table(cells: Sequence[Cell]) -> Table:
    columns = ("server", "load", "capacity/s", "in time", "goodput/s", "for nobody", "not in time")
    rows = [
        (
            cell.server,
            f"{cell.load:.0%}",
            f"{cell.capacity:.0f}",
            f"{cell.met:.1%}",
            f"{cell.goodput:.0f}",
            "-" if cell.wasted is None else f"{cell.wasted:.1%}",
            ", ".join(f"{name} {count}" for name, count in sorted(cell.faults.items())),
        )
        for cell in cells
    ]
    budgets = ", ".join(map(str, BUDGETS))
    return table(f"Poisson arrivals, budgets of {budgets} times a request's own", columns, rows)

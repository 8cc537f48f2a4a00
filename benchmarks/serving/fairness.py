"""Two models on one server: one is flooded, the other asked for little; then both are flooded.

What a model asks for below its share it shall get as if the other were not there; where both want
more, run time shall be divided by their weights. Capacity is the server's own, by closed loops, and
budgets are multiples of what a request then takes a core, as in `overload`.
"""

import argparse
import asyncio
import dataclasses
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from _common import Target
from rich.table import Table

from hybridge.cli.console import table
from hybridge.protos import open_inference_pb2 as pb
from hybridge.protos.oip import Stub
from hybridge.shared.security import Address

from .client import Outcome, closed_loop, infer_caller, open_loop, poisson
from .cores import Cores, kept_to, started_on
from .findings import Asked, Findings
from .models import MOBILE_UINT8, Served, make_models, write_served
from .processes import cloud

BUDGETS = (8, 16, 32, 80)
FLOOD, MODEST, BOTH = 3.0, 0.2, 1.5
WEIGHT = 3.0
KEPT, OFF, GOODPUT = 0.9, 0.05, 0.8
ASKED: Sequence[Asked] = ()
_PAIR = tuple(dataclasses.replace(MOBILE_UINT8, name=name) for name in ("flooded", "modest"))
_CONCURRENCY = 8
_PAUSE_S = 2.0
"""Between two cases: who had how much is remembered for a while."""
_SEED = 11


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model in one case; `load` is what it was asked for, of capacity."""

    case: str
    model: str
    load: float
    in_time: float
    goodput: float
    """A second, of capacity."""
    run_time: float
    """Of what both models computed."""
    faults: dict[str, int]


def add_options(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def measure(options: argparse.Namespace) -> Findings:
    store, cores = make_models(), Cores.shared_out()
    seconds = 3.0 if options.quick else 16.0
    graph = store.onnx(MOBILE_UINT8).read_bytes()
    bundles = store.root / "bundles" / "fairness"
    for served in _PAIR:
        write_served(served, root=bundles, graph=graph)
    cells: list[Cell] = []
    cases: dict[tuple[str, ...], dict[str, tuple[float, float]]] = {
        (): {"modest alone": (0.0, MODEST), "one flooded": (FLOOD, MODEST), "both": (BOTH, BOTH)},
        (f"--share=modest={WEIGHT:g}",): {f"both, 1 to {WEIGHT:g}": (BOTH, BOTH)},
    }
    with tempfile.TemporaryDirectory(prefix="hybridge-serving-") as logs, kept_to(cores.client):
        for given, loads in cases.items():
            starting = cloud(bundles, *given, log=Path(logs) / "cloud.log")
            with started_on(cores.server, starting) as running:
                cells += asyncio.run(_cases(running.address, loads, seconds, len(cores.server)))
    return Findings(
        targets=_targets({(cell.case, cell.model): cell for cell in cells}),
        figures={f"{cell.case}: {cell.model}": dataclasses.asdict(cell) for cell in cells},
        tables=[_table(cells)],
    )


async def _cases(
    address: Address, cases: Mapping[str, tuple[float, float]], seconds: float, cores: int
) -> list[Cell]:
    callers = [infer_caller(address, served) for served in _PAIR]
    cells: list[Cell] = []
    try:
        await closed_loop(callers[1], concurrency=_CONCURRENCY, seconds=1.0)
        for case, loads in cases.items():
            await asyncio.sleep(_PAUSE_S)
            loop = await closed_loop(callers[1], concurrency=_CONCURRENCY, seconds=seconds / 4)
            budgets_s = [times * cores / loop.rps for times in BUDGETS]
            arrivals = [
                poisson(load * loop.rps, seconds=seconds, budgets_s=budgets_s, seed=_SEED + at)
                if load
                else []
                for at, load in enumerate(loads)
            ]
            before = [await _ran_s(address, served) for served in _PAIR]
            outcomes = await asyncio.gather(*map(open_loop, callers, arrivals))
            ran_s = [
                await _ran_s(address, served) - was_s
                for served, was_s in zip(_PAIR, before, strict=True)
            ]
            cells += [
                _cell(case, served, load, came, loop.rps * seconds, own_s / sum(ran_s))
                for served, load, came, own_s in zip(_PAIR, loads, outcomes, ran_s, strict=True)
                if load
            ]
        return cells
    finally:
        for caller in callers:
            await caller.close()


async def _ran_s(address: Address, served: Served) -> float:
    """How long instances have computed for a model since the start."""
    async with grpc.aio.insecure_channel(str(address)) as channel:
        found = await Stub(channel).ModelStatistics(pb.ModelStatisticsRequest(name=served.name))
    return sum(
        (batch.compute_infer.ns + batch.compute_input.ns) / 1e9
        for model in found.model_stats
        for batch in model.batch_stats
    )


def _cell(
    case: str,
    served: Served,
    load: float,
    outcomes: Sequence[Outcome],
    possible: float,
    run_time: float,
) -> Cell:
    in_time = sum(each.in_time for each in outcomes)
    return Cell(
        case=case,
        model=served.name,
        load=load,
        in_time=in_time / len(outcomes),
        goodput=in_time / possible,
        run_time=run_time,
        faults=dict(Counter(each.fault or "late" for each in outcomes if not each.in_time)),
    )


def _targets(cells: Mapping[tuple[str, str], Cell]) -> list[Target]:
    alone, beside = cells["modest alone", "modest"], cells["one flooded", "modest"]
    both = cells["both", "flooded"], cells["both", "modest"]
    weighted = cells[f"both, 1 to {WEIGHT:g}", "modest"]
    return [
        Target.at_least(
            "fairness: in time beside a flood",
            beside.in_time / alone.in_time,
            unit="of alone",
            bound=KEPT,
        ),
        Target.at_least(
            "fairness: goodput of two floods",
            sum(each.goodput for each in both),
            unit="of capacity",
            bound=GOODPUT,
        ),
        Target.at_most(
            "fairness: run time off 1 to 1",
            abs(both[1].run_time - 0.5),
            unit="of all",
            bound=OFF,
        ),
        Target.at_most(
            f"fairness: run time off 1 to {WEIGHT:g}",
            abs(weighted.run_time - WEIGHT / (1 + WEIGHT)),
            unit="of all",
            bound=OFF,
        ),
    ]


def _table(cells: Sequence[Cell]) -> Table:
    columns = ("case", "model", "asked", "in time", "goodput", "run time", "not in time")
    rows = [
        (
            cell.case,
            cell.model,
            f"{cell.load:.0%}",
            f"{cell.in_time:.1%}",
            f"{cell.goodput:.1%}",
            f"{cell.run_time:.1%}",
            ", ".join(f"{name} {count}" for name, count in sorted(cell.faults.items())),
        )
        for cell in cells
    ]
    return table("Two models, asked for and answered in parts of capacity", columns, rows)

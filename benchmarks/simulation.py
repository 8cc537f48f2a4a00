"""The promise, simulated: {links} x {budgets} x {policies} in virtual time, around the real agent.

    python benchmarks/simulation.py [--quick] [--json] [--jobs N]
        [--data DIR | --bundle NAME|DIR --pictures DIR] [--traces DIR]
        [--links lte,3g,...] [--budgets 60,200,...] [--policies ours,local,...] [--seeds N]
    python benchmarks/simulation.py --lab DIR ...

The board is a share of one core of the machine whose profile the bundle has. Every plan's answer to
every picture is computed once, and kept in $HYBRIDGE_HOME/wan. The oracle comes from replays of
every plan that no other beats in agreement, bytes and time on the device. With --lab the board and
the cloud are those of a laboratory (benchmarks/wan), its finished cells are simulated too, and the
differences are the simulator's error; the matrix is then run only if --links says so. See
docs/wan.md.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
from _common import Report, load, machine, parser, progress, run
from rich.table import Table
from wan import links
from wan.answers import Answers, answers_file, answers_of
from wan.arrivals import Arrivals
from wan.boards import Finished, world_of
from wan.fidelity import arrivals_of, compare, error_figures, error_table
from wan.findings import cell_table, targets
from wan.matrix import FIXED, POLICIES, Matrix, groups, read_budgets_ms
from wan.pairs import Pair, add_pair_options, pair_of
from wan.records import Cell, Measured
from wan.replays import LOCAL, Costs, costs_of, front
from wan.simulator import World, simulate

from hybridge.cli.console import notes
from hybridge.shared.paths import Paths

_BUDGETS_MS = "65,200,600,2000"
_QUICK_PICTURES, _QUICK_REQUESTS = 24, 100
_QUICK_LINKS, _QUICK_BUDGETS_MS = ["lte"], [200.0]


def measure(options: argparse.Namespace) -> Report:
    before = load()
    pair, answers = _answered(pair_of(options), quick=options.quick)
    finished = Finished.read(options.lab, pair, share=options.share) if options.lab else None
    if finished is None:
        kept = _cache() / f"decode-{pair.name}.json"
        world = world_of(pair, answers, share=options.share, kept=kept)
    else:
        world = finished.world(pair.bundle, answers)
    half_hz = round(world.board.capacity_hz / 2, 2)
    rate_hz = half_hz if options.rate is None else options.rate
    plans = _plans(world)
    cells = [] if finished and not options.links else _cells(options, pair, plans, rate_hz)
    repeated = finished.cells if finished else []
    began_s = time.perf_counter()
    simulated = _simulate(
        [(cell, Arrivals(options.arrivals)) for cell in cells]
        + [(each.cell, arrivals_of(each)) for each in repeated],
        world, traces=options.traces, jobs=options.jobs,
    )  # fmt: skip
    took_s = time.perf_counter() - began_s
    measured, again = simulated[: len(cells)], simulated[len(cells) :]
    wanted = dict(zip(answers.pictures, map(int, answers.large), strict=True))
    found = groups(measured, wanted, plans=plans)
    compared = [compare(*both, wanted) for both in zip(repeated, again, strict=True)]
    hours = sum(each.cell.requests / each.cell.rate_hz for each in simulated) / 3600
    requests = sum(each.cell.requests for each in simulated)
    board = world.board
    said = [
        f"{pair.name}, version {pair.bundle.manifest.version}, {len(answers.pictures)} pictures; "
        f"oracle from {len(plans) - 1} plans of {len(pair.bundle.manifest.table) - 1}",
        f"board: {board.share:.1%} of a core, {board.capacity_hz:.1f} requests a second alone; "
        f"decoding takes {board.decode_ms:.1f} ms, the agent {board.inside_ms:.1f} a lane, "
        f"what is around it {board.outside_ms:.1f} and asking the cloud {board.exchange_ms:.1f}",
        f"{hours:.2f} hours in {took_s:.1f} s at {rate_hz:g} requests a second: "
        f"{hours / took_s:.4f} hours and {requests / took_s:.0f} requests a second, "
        f"{options.jobs} at a time",
    ]
    figures: dict[str, Any] = {
        "rate_hz": rate_hz,
        "simulated_hours": hours,
        "simulated_hours_per_s": hours / took_s,
        "requests_per_s": requests / took_s,
        "board": msgspec.to_builtins(board),
        "tails_ms": world.tails_ms,
        "groups": [group.as_json() for group in found],
    }
    tables: list[Table] = [cell_table(found)] if found else []
    if compared:
        errors = error_figures(compared)
        figures |= {"error": errors, "compared": [each.as_json() for each in compared]}
        tables.append(error_table(compared))
        said.append(
            f"beside {len(compared)} cells of the laboratory, mean and largest difference: in "
            f"budget {_points(errors, 'in_budget')} points, agreement "
            f"{_points(errors, 'agreement')} points, median response {errors['p50_ms_mean']:.0f} "
            f"and {errors['p50_ms_max']:.0f} ms ({errors['p50_share_mean']:.0%} and "
            f"{errors['p50_share_max']:.0%})"
        )
    return Report(
        benchmark="simulation",
        targets=targets(measured, found),
        figures=figures,
        samples={"cells": [each.cell.name for each in simulated]},
        machine=machine(load_before=before),
        notes=said,
        tables=tables,
    )


def _answered(pair: Pair, *, quick: bool) -> tuple[Pair, Answers]:
    """The pair with its table of answers; a quick run computes one for a few pictures only."""
    cache, pictures = _cache(), pair.pictures
    if quick and not answers_file(pair.bundle, pictures, cache=cache).exists():
        pictures = pictures[:_QUICK_PICTURES]
    answers = answers_of(pair.bundle, pictures, cache=cache)
    return Pair(pair.name, pair.bundle, pictures), answers


def _cache() -> Path:
    return Paths.from_environment().root / "wan"


def _plans(world: World) -> dict[str, Costs]:
    """Every plan that is worth a choice, and the device's own answer."""
    plans = costs_of(world.bundle.manifest.table, world.board.work_ms)
    local = plans.pop(LOCAL)
    return {LOCAL: local} | {plan: plans[plan] for plan in front(plans)}


def _cells(
    options: argparse.Namespace, pair: Pair, plans: dict[str, Costs], rate_hz: float
) -> list[Cell]:
    names = options.links.split(",") if options.links else links.all_names(options.traces)
    budgets_ms = read_budgets_ms(options.budgets)
    if options.quick:
        names, budgets_ms = _QUICK_LINKS, _QUICK_BUDGETS_MS
    replays = [f"{FIXED}{plan}" for plan in plans if plan != LOCAL]
    return Matrix(
        pair=pair.name,
        links=names,
        budgets_ms=budgets_ms,
        policies=[*options.policies.split(","), *replays],
        requests=_QUICK_REQUESTS if options.quick else options.requests,
        rate_hz=rate_hz,
        seeds=options.seeds,
        ours_seeds=options.seeds,
    ).cells()


def _simulate(
    cells: Sequence[tuple[Cell, Arrivals]], world: World, *, traces: Path | None, jobs: int
) -> list[Measured]:
    """In the order of the cells. Each knows all it needs: the result does not depend on `jobs`."""
    specs = {name: links.find_link(name, traces=traces) for name in {c.link for c, _ in cells}}
    with progress("cells", len(cells)) as advance:
        if jobs == 1:
            done = []
            for cell, arrivals in cells:
                done.append(simulate(cell, world, link=specs[cell.link], arrivals=arrivals))
                advance()
            return done
        notes.print(f"{jobs} processes")
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            asked = [
                pool.submit(simulate, cell, world, link=specs[cell.link], arrivals=arrivals)
                for cell, arrivals in cells
            ]
            for each in asked:
                each.add_done_callback(lambda _: advance())
            return [each.result() for each in asked]


def _points(errors: dict[str, float], name: str) -> str:
    return f"{100 * errors[f'{name}_mean']:.2f} and {100 * errors[f'{name}_max']:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__ or "")
    add_pair_options(made)
    made.add_argument("--traces", type=Path, metavar="DIR", help="recorded links: NAME.up, .down")
    made.add_argument("--links", metavar="NAMES", help="by comma; all, if not given")
    made.add_argument("--budgets", default=_BUDGETS_MS, metavar="MS", help="by comma")
    made.add_argument("--policies", default=",".join(POLICIES), metavar="NAMES", help="by comma")
    made.add_argument("--requests", type=int, default=600, metavar="N", help="a cell")
    made.add_argument("--rate", type=float, metavar="HZ", help="half of what the board can do")
    made.add_argument("--arrivals", choices=[str(each) for each in Arrivals], default=Arrivals.EVEN)
    made.add_argument("--share", type=float, default=0.25, help="of one core, for the edge")
    made.add_argument("--seeds", type=int, default=1, metavar="N", help="stretches of a link")
    made.add_argument("--lab", type=Path, metavar="DIR", help="the --out of benchmarks/wan")
    made.add_argument("--jobs", type=int, default=1, metavar="N", help="cells at a time")
    return run(measure, made.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())

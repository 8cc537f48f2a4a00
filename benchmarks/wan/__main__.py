"""The promise, in a laboratory: {links} x {budgets} x {policies}, with real processes and packets.

    sudo python benchmarks/wan [--quick] [--json] [--out DIR]
        [--data DIR | --bundle NAME|DIR --pictures DIR] [--traces DIR]
        [--links lte,3g,...] [--budgets 60,200,...] [--policies ours,local,...] [--oracle]

Edge and cloud run in two network namespaces, joined by an emulated link; the edge has a quarter of
a core. Without a word of it, the demo's bundle is run on the demo's pictures. Every finished cell
is a file in DIR, and what is there is not run again. --failures N adds N clouds killed and N links
cut in mid-request. See docs/wan.md.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from _common import Report, load, machine, parser, progress, run
from wan import links
from wan.arrivals import Arrivals
from wan.boards import measured_by, work_ms_of
from wan.failures import Failure, Outcome, sabotage
from wan.findings import failure_table, failure_targets, matrix_table, quick_targets, targets
from wan.laboratory import Calibration, Laboratory, Setting
from wan.matrix import (
    FIXED,
    OURS,
    POLICIES,
    Group,
    Matrix,
    check_policies,
    groups,
    read_budgets_ms,
)
from wan.page import page
from wan.pairs import Pair, add_pair_options, pair_of
from wan.records import Cell, Measured
from wan.references import large_answers
from wan.replays import LOCAL, Costs, costs_of, next_replay

from hybridge.cli.console import notes
from hybridge.shared.errors import ConfigError
from hybridge.shared.paths import Paths

_FAILURE_BUDGET_MS = 600.0
_QUICK_REQUESTS, _QUICK_FAILURES = 30, 1
_CALIBRATION = 720
"""Requests: the p99 of fewer rests on two or three of them."""


def measure(options: argparse.Namespace) -> Report:
    before = load()
    _check(options)  # before anything is built, started or calibrated
    out = _folder(options)
    pair = pair_of(options)
    setting = Setting(
        folder=out,
        share=options.share,
        traces=options.traces,
        congestion_control=options.congestion_control,
        trust=tuple(options.trust),
        arrivals=Arrivals(options.arrivals),
    )
    with ExitStack() as stack:
        made: list[Laboratory] = []

        def laboratory() -> Laboratory:
            """Started when something is missing, and once."""
            if not made:
                notes.print("starting edge, cloud and link")
                made.append(stack.enter_context(Laboratory(pair, setting)))
            return made[0]

        kept = out / f"calibration_{pair.name}_{setting.share:g}.json"
        if not kept.exists():
            count = _QUICK_REQUESTS if options.quick else max(options.requests, _CALIBRATION)
            kept.write_text(json.dumps(asdict(laboratory().calibrate(requests=count))))
        calibration = Calibration(**json.loads(kept.read_text()))
        rate_hz = calibration.rate_hz if options.rate is None else options.rate
        cells = _cells(options, pair, calibration, rate_hz)
        measured, plans = [], dict[str, Costs]()

        def found(cell: Cell) -> Measured:
            measured.append(Measured.load(out, cell) or _measure(laboratory, cell, out))
            return measured[-1]

        with progress("cells", len(cells)) as advance:
            for cell in cells:
                found(cell)
                advance()
        if options.oracle:
            known = measured_by(out, pair.bundle, share=setting.share)
            plans = costs_of(pair.bundle.manifest.table, work_ms_of(known))
            alone = [cell for cell in cells if cell.policy == LOCAL]
            with progress("oracles", len(alone)) as advance:
                for cell in alone:
                    _replay(cell, plans, found, measured)
                    advance()
        outcomes = {
            failure: sabotage(
                laboratory,
                failure,
                count=_QUICK_FAILURES if options.quick else options.failures,
                policy="cloud-jpeg" if options.quick else options.failure_policy,
                budget_ms=_FAILURE_BUDGET_MS,
                rate_hz=rate_hz,
                file=out / f"failures_{pair.name}_{failure}.jsonl",
            )
            for failure in Failure
            if options.quick or options.failures
        }
    wanted = large_answers(pair.bundle, pair.pictures, kept=out / f"large_{pair.name}.json")
    return _report(
        pair, setting, calibration, measured, groups(measured, wanted, plans=plans), outcomes,
        rate_hz=rate_hz, load_before=before,
    )  # fmt: skip


def _measure(laboratory: Callable[[], Laboratory], cell: Cell, out: Path) -> Measured:
    notes.print(f"{cell.link}, {cell.budget_ms:g} ms, {cell.policy}, seed {cell.seed}")
    measured = laboratory().measure(cell)
    measured.save(out)
    return measured


def _replay(
    alone: Cell,
    plans: Mapping[str, Costs],
    found: Callable[[Cell], Measured],
    measured: Iterable[Measured],
) -> None:
    """Replays of the stretch on which the device was alone, until its oracle is known."""
    replays = {
        each.cell.policy.removeprefix(FIXED): each.records
        for each in measured
        if each.cell.policy.startswith(FIXED) and replace(each.cell, policy=LOCAL) == alone
    }
    while (plan := next_replay(plans, replays, range(alone.requests))) is not None:
        replays[plan] = found(replace(alone, policy=f"{FIXED}{plan}")).records


def _folder(options: argparse.Namespace) -> Path:
    """Where cells are kept; what a quick run finds there it measures again."""
    name = "quick" if options.quick else "laboratory"
    out: Path = options.out or Paths.from_environment().root / "wan" / name
    out.mkdir(parents=True, exist_ok=True)
    if options.quick and options.out is None:
        for file in [*out.glob("*.json"), *out.glob("*.jsonl")]:
            file.unlink()
    return out


def _check(options: argparse.Namespace) -> None:
    """ConfigError for links, policies and figures that cannot be meant."""
    for name in options.links.split(",") if options.links else []:
        links.find_link(name, traces=options.traces)
    check_policies([*(options.policies.split(",") if options.policies else [])])
    if options.budgets:
        read_budgets_ms(options.budgets)
    if options.traces is not None and not links.recorded_names(options.traces):
        raise ConfigError(f"no recorded links in {options.traces}: NAME.up and NAME.down")
    if options.budget_steps < 1 or options.failures < 0:
        raise ConfigError("--budget-steps is at least 1, --failures at least 0")


def _cells(
    options: argparse.Namespace, pair: Pair, calibration: Calibration, rate_hz: float
) -> list[Cell]:
    policies = list(options.policies.split(",") if options.policies else POLICIES)
    if options.oracle and LOCAL not in policies:
        policies.append(LOCAL)  # what it is measured from
    names = options.links.split(",") if options.links else links.all_names(options.traces)
    budgets_ms = (
        read_budgets_ms(options.budgets)
        if options.budgets
        else calibration.budgets_ms(options.budget_steps)
    )
    if options.quick:  # what was named is kept
        policies = policies if options.policies else [OURS, "local"]
        names = names if options.links else ["lte"]
        budgets_ms = budgets_ms if options.budgets else budgets_ms[-1:]
    return Matrix(
        pair=pair.name,
        links=names,
        budgets_ms=budgets_ms,
        policies=policies,
        requests=_QUICK_REQUESTS if options.quick else options.requests,
        rate_hz=rate_hz,
        seeds=options.seeds,
        ours_seeds=options.ours_seeds or options.seeds,
    ).cells()


def _report(
    pair: Pair,
    setting: Setting,
    calibration: Calibration,
    measured: Sequence[Measured],
    found: Sequence[Group],
    outcomes: dict[Failure, Outcome],
    *,
    rate_hz: float,
    load_before: float,
) -> Report:
    circumstances = measured[-1].circumstances if measured else {}
    said = [
        f"{pair.name}, version {pair.bundle.manifest.version}, {len(pair.pictures)} pictures",
        f"the edge had {calibration.cpu_share:.1%} of a core when busy; alone, through the agent: "
        f"p50 {calibration.p50_ms:.1f} ms, p99 {calibration.p99_ms:.1f} ms, under load "
        f"{calibration.loaded_p99_ms:.1f} ms, {calibration.capacity_hz:.1f} requests a second",
        f"load {rate_hz:g} requests a second, {setting.arrivals}; TCP congestion "
        f"control {circumstances.get('congestion_control', 'unknown')}",
    ]
    written = setting.folder / f"{pair.name}.html"
    written.write_text(page(f"Hybridge in the laboratory: {pair.name}", found, said))
    return Report(
        benchmark="wan",
        targets=[*targets(measured, found), *quick_targets(found), *failure_targets(outcomes)],
        figures={
            "calibration": asdict(calibration),
            "groups": [group.as_json() for group in found],
            "failures": {str(failure): asdict(each) for failure, each in outcomes.items()},
        },
        samples={"cells": [f"{each.cell.name}.json" for each in measured]},
        machine=machine(load_before=load_before),
        notes=[*said, f"charts: {written}"],
        tables=[matrix_table(found), *([failure_table(outcomes)] if outcomes else [])],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__ or "")
    made.add_argument("--out", type=Path, metavar="DIR", help="where cells are kept")
    add_pair_options(made)
    made.add_argument("--traces", type=Path, metavar="DIR", help="recorded links: NAME.up, .down")
    made.add_argument("--links", metavar="NAMES", help="by comma; all, if not given")
    made.add_argument("--budgets", metavar="MS", help="by comma; from the device's own p99 to 2 s")
    made.add_argument(
        "--budget-steps",
        type=int,
        default=5,
        metavar="N",
        help="budgets from the least to 2 s, evenly in their logarithms (default %(default)s)",
    )
    made.add_argument("--policies", metavar="NAMES", help=f"by comma ({','.join(POLICIES)})")
    made.add_argument(
        "--oracle",
        action="store_true",
        help="replay the plans that it takes to know what a clairvoyant would have taken",
    )
    made.add_argument("--requests", type=int, default=300, metavar="N", help="a cell")
    made.add_argument("--rate", type=float, metavar="HZ", help="else half of local capacity")
    made.add_argument("--seeds", type=int, default=1, metavar="N", help="stretches of a link")
    made.add_argument("--ours-seeds", type=int, default=0, metavar="N", help="the same for ours")
    made.add_argument(
        "--arrivals", choices=[str(each) for each in Arrivals], default=Arrivals.POISSON
    )
    made.add_argument("--share", type=float, default=0.25, help="of one core, for the edge")
    made.add_argument("--congestion-control", default="", metavar="NAME", help="of TCP")
    made.add_argument("--failures", type=int, default=0, metavar="N", help="of each kind")
    made.add_argument(
        "--failure-policy", default=OURS, metavar="NAME", help="one that asks a cloud"
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # blocks are left
    return run(measure, made.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())

"""The cloud as a server: what it answers, how fast, and how it behaves when there is too much.

    python benchmarks/serving [--quick] [--json] [--only throughput,identity,...]

Servers run as processes of their own beside one client, as they would on one machine.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from _common import Report, Target, load, machine, parser, run
from serving import fairness, growth, hot_swap, identity, large_model, overload, soak, throughput
from serving.findings import Asked, Findings, Part

from hybridge.cli.console import notes
from hybridge.shared.errors import ConfigError

PARTS: Mapping[str, Part] = {
    "throughput": throughput,
    "identity": identity,
    "growth": growth,
    "hot_swap": hot_swap,
    "overload": overload,
    "fairness": fairness,
    "soak": soak,
    "large_model": large_model,
}

QUICK = ("throughput", "identity", "overload", "soak")
"""What `--quick` looks at, in less than a minute, unless it is told what."""

ON_A_GPU = Asked("cuda: tails of a ViT or ResNet-50, of bare torch", "of bare", 0.9)
"""Asked where there is one."""


def measure(options: argparse.Namespace) -> Report:
    before = load()
    names = options.only.split(",") if options.only else [*(QUICK if options.quick else PARTS)]
    if unknown := [name for name in names if name not in PARTS]:
        raise ConfigError(f"no part {unknown[0]!r} (there: {', '.join(PARTS)})")
    found: dict[str, Findings] = {}
    for name in names:
        notes.print(f"{name}: measuring")
        found[name] = PARTS[name].measure(options)
    return _report(found, load_before=before)


def _report(found: Mapping[str, Findings], *, load_before: float) -> Report:
    def joined(field: str) -> list[Any]:
        return [each for part in found.values() for each in getattr(part, field)]

    return Report(
        benchmark="serving",
        targets=[*joined("targets"), *_missing(found)],
        figures={name: part.figures for name, part in found.items()},
        samples={name: part.samples for name, part in found.items()},
        machine=machine(load_before=load_before),
        notes=joined("notes"),
        tables=joined("tables"),
    )


def _missing(found: Mapping[str, Findings]) -> list[Target]:
    """What is asked of the cloud and was not measured, and why."""
    missing = [
        each.missing(found[name].why_not if name in found else f"{name} was not run")
        for name, part in PARTS.items()
        for each in part.ASKED
        if name not in found or not any(t.name.startswith(each.name) for t in found[name].targets)
    ]
    return [*missing, ON_A_GPU.missing("no part of this benchmark runs on a GPU")]


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__ or "")
    made.add_argument("--only", default="", metavar="PARTS", help="with commas; all by default")
    for part in PARTS.values():
        part.add_options(made)
    return run(measure, made.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())

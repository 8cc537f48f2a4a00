"""What the benchmarks share: options, the demo's bundle, statistics, progress and the report.

A benchmark measures and reports; it exits 0 whether or not its targets hold, so that a figure that
misses is seen in its place among the others. Faults exit as the command line's do.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from hybridge.cli.console import StepProgress, complain, table
from hybridge.shared.bundle import Bundle, find_bundle, open_bundle
from hybridge.shared.errors import BundleError, HybridgeError, UnknownModel, meaning, public_message
from hybridge.shared.paths import Paths
from hybridge.shared.signing import SigningKey, TrustStore

_Z_95 = 1.96


@dataclass(frozen=True, slots=True)
class Summary:
    """Samples at a glance: median with its 95 % interval, quartiles, and how many there were."""

    median: float
    low: float
    high: float
    p25: float
    p75: float
    samples: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Self:
        """The interval is of order statistics (David and Nagaraja, Order Statistics, 7.1).

        It assumes nothing of the distribution, which on a shared machine is anything but normal.

        >>> Summary.of([3.0, 1.0, 2.0]).median
        2.0
        """
        if not samples:
            raise ValueError("no samples")
        ordered = sorted(samples)
        count = len(ordered)
        margin = _Z_95 * math.sqrt(count) / 2
        low = max(0, math.floor(count / 2 - margin) - 1)
        high = min(count - 1, math.ceil(count / 2 + margin))
        p25, p75 = (float(value) for value in np.quantile(ordered, [0.25, 0.75]))
        return cls(
            median=statistics.median(ordered),
            low=ordered[low],
            high=ordered[high],
            p25=p25,
            p75=p75,
            samples=count,
        )

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that was asked for, and the bound it should keep.

    One without a value was not measured: `note` says why, or what a figure falls short of.
    """

    name: str
    value: float | None
    unit: str
    bound: float | None
    holds: bool | None
    note: str = ""

    @classmethod
    def at_most(cls, name: str, value: float, *, unit: str, bound: float, note: str = "") -> Self:
        return cls(name, value, unit, bound, value <= bound, note)

    @classmethod
    def at_least(cls, name: str, value: float, *, unit: str, bound: float, note: str = "") -> Self:
        return cls(name, value, unit, bound, value >= bound, note)

    @classmethod
    def not_measured(cls, name: str, *, unit: str, bound: float | None, why: str) -> Self:
        return cls(name, None, unit, bound, None, why)

    def as_json(self) -> dict[str, Any]:
        fields = asdict(self)
        return fields if self.note else {k: v for k, v in fields.items() if k != "note"}

    @property
    def verdict(self) -> str:
        return "not measured" if self.holds is None else "yes" if self.holds else "NO"


@dataclass(frozen=True, slots=True)
class Report:
    """Everything one run found; names say their units."""

    benchmark: str
    targets: Sequence[Target]
    figures: dict[str, Any]
    samples: dict[str, Any]
    machine: dict[str, Any]
    notes: Sequence[str] = ()
    tables: Sequence[Table] = field(default=(), compare=False)

    def as_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "targets": [target.as_json() for target in self.targets],
            "figures": self.figures,
            "machine": self.machine,
            "notes": list(self.notes),
            "samples": self.samples,
        }

    def show(self, console: Console) -> None:
        """For people: the tables, then every target with its verdict."""
        for part in self.tables:
            console.print(part)
            console.print()
        rows = [
            (
                target.name,
                "-" if target.value is None else f"{target.value:.3g}",
                "-" if target.bound is None else f"{target.bound:g}",
                target.unit,
                target.verdict,
            )
            for target in self.targets
        ]
        console.print(table("targets", ("target", "value", "bound", "unit", "holds"), rows))
        for note in self.notes:
            console.print(f"note: {note}", soft_wrap=True)
        load = self.machine["load_before"], self.machine["load_after"]
        console.print(f"{self.machine['processor']}, {self.machine['cores']} cores, load {load}")


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark takes."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="fewer samples, under a minute")
    made.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    return made


def run(measure: Callable[[argparse.Namespace], Report], options: argparse.Namespace) -> int:
    """Measures, reports, and returns the exit code."""
    try:
        # Whatever is printed on the way, such as a build's progress, must not meet the JSON.
        with contextlib.redirect_stdout(sys.stderr):
            report = measure(options)
    except HybridgeError as error:
        complain(public_message(error))
        return meaning(error).exit_code
    if options.json:
        sys.stdout.write(json.dumps(report.as_json(), indent=2, allow_nan=False) + "\n")
    else:
        report.show(
            Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 160)
        )
    return 0


def demo_bundle() -> Bundle:
    """The demo's bundle from $HYBRIDGE_HOME, built there if it is not."""
    from hybridge.cli.demo.recipe import NAME, make_recipe

    paths = Paths.from_environment()
    key = SigningKey.load_or_create(paths.signing_key)
    trust = TrustStore(frozenset({key.public_hex}))
    try:
        return open_bundle(find_bundle(NAME, root=paths.bundles), trust=trust)
    except UnknownModel:
        complain("no bundle yet: building the demo's, a few minutes")
    except BundleError as error:
        raise BundleError(f"{error}; remove {paths.bundles / NAME} to build it anew") from error
    from hybridge.cli.building import build_recipe

    recipe = make_recipe(paths.root / "demo")
    with StepProgress() as progress:
        return build_recipe(recipe, root=paths.bundles, progress=progress)


def load() -> float:
    """How many processes want a core, over the last minute."""
    return round(os.getloadavg()[0], 2)


def machine(*, load_before: float) -> dict[str, Any]:
    """The machine that was measured, and how busy it was."""
    from hybridge.devices.probe import probe

    device = probe()
    return {
        "processor": device.processor,
        "cores": device.cores,
        "features": list(device.features),
        "system": device.system,
        "runtime": device.runtime,
        "load_before": load_before,
        "load_after": load(),
    }


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr; call what is given once per step. Nothing where nobody watches."""
    console = Console(stderr=True, emoji=False)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)

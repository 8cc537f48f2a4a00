"""The report in a terminal."""

from collections.abc import Iterator
from math import isfinite

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..words import NOTHING, bytes_words, count_words, ms_words
from .clouds import cloud_part
from .facts import Inspection
from .guarantee import guarantee
from .machines import Link, Machine, cloud_of, options_on
from .tables import (
    Grid,
    count_of,
    cuts,
    layers,
    machines,
    models,
    parts,
    plans,
    quantization,
)
from .whatif import decided, ladder, verdict

_WORDS = frozenset(
    {"plan", "cut", "fate", "remarks", "route", "method", "machine", "part", "runtime", "why"}
)
"""Columns of words, which stand to the left and may wrap; figures stand to the right."""


def show(
    report: Inspection,
    *,
    machine: Machine | None,
    link: Link,
    budget_ms: float,
    cloud_speed: float,
) -> Iterator[RenderableType]:
    """What to print, one after the other."""
    yield _identity(report, machine)
    grids = [models(report, machine), cuts(report, machine), plans(report, machine)]
    if (in_layers := layers(report)).rows:
        grids.append(in_layers)
    grids.append(guarantee(report))
    if report.bundle.manifest.large.variants:
        grids.append(cloud_part(report))
    grids += [quantization(report), machines(report), parts(report)]
    for grid in grids:
        yield ""
        yield _table(grid) if grid.rows else Text(f"{grid.title}: not recorded", style="dim")
    yield ""
    if machine is None:
        hint = f"hybridge profile {report.bundle.path}"
        yield Text(f"No machine has a profile, so nothing can be forecast; run `{hint}` on one.")
        return
    yield from _what_if(report, machine, link, budget_ms, cloud_speed)


def _identity(report: Inspection, machine: Machine | None) -> RenderableType:
    manifest = report.bundle.manifest
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()
    name = Text(f"{manifest.name} {manifest.version}", style="bold")
    grid.add_row("bundle", name + Text(f"  format {manifest.format}, signed", style="dim"))
    grid.add_row("hash", report.bundle.sha256)
    grid.add_row("task", f"{manifest.task}, {manifest.classes:,} classes")
    files = count_words(len(manifest.blobs()), "file")
    grid.add_row("size", f"{bytes_words(report.total_bytes)} in {files}")
    grid.add_row("budget", f"{manifest.default_budget_ms:g} ms where a request brings none")
    if report.graph:
        work = f"{count_of(report.graph.multiply_adds)} multiply-adds"
        count = count_words(len(report.graph.operators), "operator")
        grid.add_row("large", f"{work}, {count}")
    if machine:
        grid.add_row("times", f"{machine.name}: {machine.origin}, p95 of each stage")
    return grid


def _what_if(
    report: Inspection, machine: Machine, link: Link, budget_ms: float, cloud_speed: float
) -> Iterator[RenderableType]:
    options = options_on(
        report.bundle.manifest,
        machine,
        cloud=cloud_of(report.machines),
        link=link,
        cloud_speed=cloud_speed,
    )
    found = verdict(options, left_ms=budget_ms)
    codes = {each.row.plan: each.code for each in report.plans}
    rows = [
        (
            codes[str(each.option.plan)],
            str(each.option.plan),
            each.rate_words,
            *map(_ms, (each.option.device_ms, each.network_ms, each.option.cloud_ms)),
            _ms(each.total_ms),
            why,
        )
        for each, why in decided(options, left_ms=budget_ms)
    ]
    columns = ("", "plan", "agreement", "device", "network", "cloud", "total ms", "why")
    speed = f", cloud {cloud_speed:g} times as fast" if cloud_speed != 1 else ""
    title = f"What if: {budget_ms:g} ms, {link.rtt_ms:g} ms round trip, {link.mbps:g} Mbit/s{speed}"
    yield _table(Grid(title, columns, rows), taken=codes[str(found.decision.option.plan)])
    yield Text(f"{found.decision.option.plan}: {found.words}", style="bold")
    rungs = [
        (
            f"from {rung.from_ms:,.1f} ms",
            str(rung.answer.option.plan),
            rung.answer.rate_words,
            rung.answer.layer_words,
        )
        for rung in ladder(options)
    ]
    by_budget = Grid("On this link, by budget", ("budget", "plan", "agreement", "of"), rungs)
    yield ""
    yield _table(by_budget.without_empty())


def _table(grid: Grid, *, taken: str = "") -> Table:
    table = Table(
        title=grid.title, title_justify="left", header_style="bold", box=None, pad_edge=False
    )
    for column in grid.columns:
        left = column in _WORDS or column == ""
        table.add_column(
            column,
            justify="left" if left else "right",
            no_wrap=column not in {"fate", "remarks", "why", "kept float", "machine"},
        )
    for row in grid.rows:
        beaten = grid.columns[-1] == "fate" and row[-1] != "kept"
        chosen = row[-1] in ("chosen", "front") or (taken != "" and row[0] == taken)
        style = "dim" if beaten else "bold" if chosen and taken else ""
        table.add_row(*(Text(cell) for cell in row), style=style)
    return table


def _ms(ms: float) -> str:
    return ms_words(ms) if isfinite(ms) else NOTHING

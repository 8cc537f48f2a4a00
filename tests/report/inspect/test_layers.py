"""What is said of frames in layers: every part with its bytes and its agreement."""

from __future__ import annotations

import dataclasses
import io

import msgspec
import pytest
from rich.console import Console

from hybridge.report.inspect.as_json import as_json
from hybridge.report.inspect.facts import Inspection, inspect_bundle
from hybridge.report.inspect.machines import Link, options_on
from hybridge.report.inspect.page import render
from hybridge.report.inspect.tables import layers
from hybridge.report.inspect.terminal import show
from hybridge.shared.manifest import Prefix, Rate

from ...inspected import FINE
from ..test_demo import Page

LINK = Link(51.0, 11.4)
PREFIXES = tuple(
    Prefix(layers=count, agreement=Rate.of(hits, 150), bytes_p50=40 * count, bytes_p95=45 * count)
    for count, hits in ((1, 110), (2, 140), (3, 147))
)


@pytest.fixture
def layered(report: Inspection) -> Inspection:
    """The finer split in four layers."""
    manifest = report.bundle.manifest
    table = tuple(
        msgspec.structs.replace(row, prefixes=PREFIXES) if row.parsed() == FINE else row
        for row in manifest.table
    )
    bundle = dataclasses.replace(
        report.bundle, manifest=msgspec.structs.replace(manifest, table=table)
    )
    return inspect_bundle(
        bundle, graph=report.graph, here=report.machines[0].profile.device.fingerprint
    )


def test_a_row_has_every_part(layered: Inspection) -> None:
    grid = layers(layered)
    assert grid.columns == (
        "", "plan", "the first layer", "the first 2", "the first 3", "all",
    )  # fmt: skip
    ((code, plan, *parts),) = grid.rows
    assert (code, plan) == ("S2", str(FINE))
    assert [part.partition(":")[0].split() for part in parts] == [
        [size, "B"] for size in ("40", "80", "120", "170")
    ]
    assert "73.3" in parts[0]
    assert "98.7" in parts[-1]


def test_nothing_is_said_where_there_are_none(report: Inspection) -> None:
    assert layers(report).rows == []


def test_it_is_shown_wherever_plans_are(layered: Inspection, report: Inspection) -> None:
    machine = layered.machines[0]

    def terminal(shown: Inspection) -> str:
        console = Console(width=200, record=True, file=io.StringIO())
        parts = show(shown, machine=machine, link=LINK, budget_ms=100.0, cloud_speed=1.0)
        for part in parts:
            console.print(part)
        return console.export_text()

    def page(shown: Inspection) -> Page:
        return Page(render(shown, machine=machine, link=LINK, budget_ms=100.0, links={"lte": LINK}))

    assert "Frames in layers" in terminal(layered)
    assert "Frames in layers" not in terminal(report)
    assert "Frames in layers" in page(layered).text
    assert "Frames in layers" not in page(report).text
    assert "after 2 of 4 layers" in render(
        layered, machine=machine, link=LINK, budget_ms=100.0, links={"lte": LINK}
    )
    said = as_json(layered, machine=machine, link=LINK, budget_ms=100.0)
    (found,) = [each["prefixes"] for each in said["plans"] if each["prefixes"]]
    assert [each["layers"] for each in found] == [1, 2, 3]


def test_the_forecast_counts_parts_where_it_is_asked_to(layered: Inspection) -> None:
    machine = layered.machines[0]

    def parts(*, in_parts: bool) -> list[int]:
        options = options_on(
            layered.bundle.manifest, machine, cloud=machine, link=LINK, cloud_speed=1.0,
            in_parts=in_parts,
        )  # fmt: skip
        return [len(option.parts) for option in options if option.plan == FINE]

    assert parts(in_parts=True) == [2]  # the first layer agrees no more often than the device
    assert parts(in_parts=False) == [0]

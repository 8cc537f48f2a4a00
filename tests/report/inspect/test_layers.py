"""What is said of frames in layers: every part with its bytes and its agreement."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hybridge.report.inspect.as_json import as_json
from hybridge.report.inspect.facts import Inspection
from hybridge.report.inspect.machines import Link, options_on
from hybridge.report.inspect.page import render
from hybridge.report.inspect.tables import layers
from hybridge.report.inspect.terminal import show
from hybridge.report.inspect.whatif import decided, verdict
from hybridge.shared.plan import Plan

from ...inspected import COARSE, FINE, LOCAL
from ..test_demo import Page

LINK = Link(51.0, 11.4)
THIN = Link(51.0, 0.01)
"""0.8 ms a byte; the finer split, 187 bytes in all, takes 63 ms beside: 212.6 ms whole."""


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


@pytest.mark.parametrize(
    ("left_ms", "taken", "layers", "agreement", "total_ms"),
    [
        (130.0, LOCAL, None, 0.8, 5.0),  # one layer agrees no more often than the device
        (137.0, FINE, 2, 140 / 150, 63.0 + 72.0),
        (200.0, FINE, 3, 147 / 150, 63.0 + 108.0),
        (213.0, FINE, None, 148 / 150, 63.0 + 149.6),
    ],
)
def test_what_if_answers_from_the_first_layers(
    layered: Inspection,
    left_ms: float,
    taken: Plan,
    layers: int | None,
    agreement: float,
    total_ms: float,
) -> None:
    said = as_json(layered, machine=layered.machines[0], link=THIN, budget_ms=left_ms)["what_if"]
    assert (said["taken"], said["layers"]) == (str(taken), layers)
    (plan,) = [each for each in said["plans"] if each["plan"] == said["taken"]]
    assert (plan["layers"], plan["agreement"]) == (layers, pytest.approx(agreement))
    assert plan["total_ms"] == pytest.approx(total_ms)
    assert [(rung["plan"], rung["layers"]) for rung in said["ladder"]][:5] == [
        ("local", None), (str(FINE), 2), (str(COARSE), None), (str(FINE), 3), (str(FINE), None),
    ]  # fmt: skip


def test_the_reasons_name_the_layers(layered: Inspection) -> None:
    machine = layered.machines[0]
    options = options_on(
        layered.bundle.manifest, machine, cloud=machine, link=THIN, cloud_speed=1.0
    )
    found = verdict(options, left_ms=200.0)
    assert found.answer.layer_words == "first 3 layers"
    assert found.answer.rate_words == "98.0\u00a0%"
    assert found.words.startswith(f"4.7 points better and 29 ms later than {COARSE}")
    said = {str(each.option.plan): why for each, why in decided(options, left_ms=200.0)}
    assert (
        said[str(FINE)]
        == "taken: the best agreement that fits, 98.0%; its first 3 layers are in time"
    )
    assert said["local"] == "agrees 18.0 points less"

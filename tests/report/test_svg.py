"""Charts: right lengths, escaped texts, nothing outside the drawing."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from hybridge.report.svg import Part, axis, bar, column, element, nice_ticks, whisker


def rects(svg: str) -> list[tuple[float, float]]:
    """Start and width of each rectangle in percent; the markup is XML as well as HTML."""
    return [
        (float(rect.attrib["x"].rstrip("%")), float(rect.attrib["width"].rstrip("%")))
        for rect in ElementTree.fromstring(svg).iter("rect")
    ]


def test_stretches_follow_one_another_to_scale() -> None:
    parts = [Part("a", 10, "first"), Part("b", 30, "second")]
    svg = bar(parts, scale=80, height_px=20, described="d", mark=60, mark_title="budget")
    assert rects(svg) == [(0, 12.5), (12.5, 37.5)]
    assert re.findall(r"<title>(.*?)</title>", svg) == ["first", "second", "budget"]
    assert 'x1="75%"' in svg


def test_what_passes_the_scale_ends_at_it() -> None:
    svg = bar(
        [Part("a", 90, ""), Part("b", 90, "")], scale=100, height_px=20, described="", mark=500
    )
    assert rects(svg) == [(0, 90), (90, 10)]
    assert 'x1="100%"' in svg


def test_the_bar_beneath_ends_with_the_stretch_it_ran_along() -> None:
    parts = [Part("head", 20, ""), Part("network", 50, ""), Part("cloud", 30, "")]
    beside = Part("light", 15, "meanwhile")
    svg = bar(parts, scale=100, height_px=20, described="", beneath=beside, beneath_ends="network")
    assert rects(svg)[-1] == (55, 15)


@pytest.mark.parametrize(("length", "label"), [(90, "network 90"), (15, "90"), (1, None)])
def test_the_longest_label_that_fits_is_written(length: float, label: str | None) -> None:
    part = Part("a", length, "", ("network 90", "90"))
    svg = bar([part], scale=100, height_px=20, described="")
    texts = [text.text for text in ElementTree.fromstring(svg).iter("text")]
    assert texts == ([label] if label else [])


def test_texts_and_attributes_are_escaped() -> None:
    svg = bar([Part("a", 1, "<b>&")], scale=1, height_px=9, described='"><script>')
    assert "<b>" not in svg
    assert "<script>" not in svg
    assert ElementTree.fromstring(svg).attrib["aria-label"] == '"><script>'
    assert element("text", "<i>") == "<text>&lt;i&gt;</text>"


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_a_scale_of_nothing_draws_nothing(scale: float) -> None:
    assert rects(bar([Part("a", 5, "")], scale=scale, height_px=9, described="")) == [(0, 0)]


def test_columns_stand_on_the_same_foot_and_grow_with_the_share() -> None:
    def box(count: int) -> dict[str, str]:
        svg = ElementTree.fromstring(column(count, of=12, colour="light", title="t"))
        return next(svg.iter("rect")).attrib

    half, whole = box(6), box(12)
    assert float(whole["height"]) == 2 * float(half["height"])
    assert float(half["y"]) + float(half["height"]) == float(whole["y"]) + float(whole["height"])
    assert "rect" not in column(0, of=12, colour="light", title="t")


def test_a_whisker_keeps_to_its_scale() -> None:
    svg = ElementTree.fromstring(whisker(1.0, 0.05, low=0.8, high=1.0, title="t"))
    error = next(line for line in svg.iter("line") if line.attrib["class"] == "error")
    assert (error.attrib["x1"], error.attrib["x2"]) == ("75%", "100%")


@pytest.mark.parametrize("limit", [0.03, 1, 7.2, 51.5, 154, 412, 9_999, 1e9])
def test_ticks_are_few_round_and_within(limit: float) -> None:
    ticks = nice_ticks(limit)
    assert ticks[0] == 0
    assert ticks[-1] <= limit
    assert 3 <= len(ticks) <= 7
    leading = ticks[1] / 10 ** math.floor(math.log10(ticks[1]) + 1e-9)
    assert any(math.isclose(leading, round_one) for round_one in (1, 2, 5))


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf])
def test_ticks_of_no_scale(limit: float) -> None:
    assert nice_ticks(limit) == [0.0]


def test_the_unit_stands_with_the_last_tick() -> None:
    svg = ElementTree.fromstring(axis([0, 50, 100], scale=103, unit="ms"))
    assert [text.text for text in svg.iter("text")] == ["0", "50", "100 ms"]

"""The curves as a chart: bytes across, on a scale of logarithms, agreement upwards."""

import math
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup
from rate_accuracy.curves import PICTURE, Curve

from hybridge.report.svg import element

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _EDGE = 900, 460, 60, 250, 30
_LOWEST = 0.85
_COLOURS = ("#1b6ca8", "#c0392b", "#27864a", "#8e44ad", "#d68910", "#117a8b", "#6e2c00", "#566573")


def write_chart(curves: Sequence[Curve], file: Path, *, title: str) -> None:
    """An SVG file; pictures are dashed, points below 85 % left out."""
    shown = [curve for curve in curves if any(p.agreement >= _LOWEST for p in curve.points)]
    sizes = [p.bytes_p50 for c in shown for p in c.points if p.agreement >= _LOWEST]
    low, high = math.log10(min(sizes) / 1.2), math.log10(max(sizes) * 1.2)

    def across(size: float) -> float:
        share = (math.log10(size) - low) / (high - low)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def upwards(agreement: float) -> float:
        share = (agreement - _LOWEST) / (1 - _LOWEST)
        return round(_HEIGHT - _EDGE - share * (_HEIGHT - 2 * _EDGE), 1)

    parts = [element("text", title, x=_LEFT, y=18, font_weight="bold")]
    for percent in (85, 90, 95, 99, 100):
        y = upwards(percent / 100)
        parts.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, stroke="#ccc"))
        parts.append(element("text", f"{percent} %", x=8, y=y + 4))
    sizes = [10**power * digit for power in range(1, 7) for digit in (1, 2, 5)]
    parts += [
        element("text", f"{size:,}", x=across(size), y=_HEIGHT - 8, text_anchor="middle")
        for size in sizes
        if low <= math.log10(size) <= high
    ]
    for at, curve in enumerate(sorted(shown, key=lambda c: (c.where, c.family))):
        colour = _COLOURS[at % len(_COLOURS)]
        points = [p for p in curve.points if p.agreement >= _LOWEST]
        places = " ".join(f"{across(p.bytes_p50)},{upwards(p.agreement)}" for p in points)
        dash = "5 4" if curve.where == PICTURE else "none"
        parts.append(
            element("polyline", points=places, fill="none", stroke=colour, stroke_dasharray=dash)
        )
        for point in points:
            name = f"{curve.where} {point.codec}: {point.bytes_p50} bytes, {point.agreement:.1%}"
            parts.append(
                element(
                    "circle",
                    element("title", name),
                    cx=across(point.bytes_p50),
                    cy=upwards(point.agreement),
                    r=3,
                    fill=colour,
                )
            )
        y = 30 + 13 * at
        parts.append(
            element(
                "text", f"{curve.where} {curve.family}", x=_WIDTH - _RIGHT + 12, y=y, fill=colour
            )
        )
    height = max(_HEIGHT, 40 + 13 * len(shown))
    content = element("g", Markup("").join(parts))
    file.write_text(
        str(
            element(
                "svg",
                content,
                xmlns="http://www.w3.org/2000/svg",
                viewBox=f"0 0 {_WIDTH} {height}",
                font_family="sans-serif",
                font_size=11,
            )
        )
        + "\n"
    )

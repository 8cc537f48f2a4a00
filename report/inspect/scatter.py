"""Points in a plane as SVG, with standard errors and the front. Pure.

Lengths across are percentages, as in report/svg.py; lengths down are pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from ..svg import element

_TOP_PX, _BOTTOM_PX = 38, 40
_INNER_LEFT, _INNER_RIGHT = 11.0, 97.0
"""Per cent of the width between which points lie; figures of the axis stand before them."""
_CODE_SHARE, _CODE_PX = 0.065, 12
"""How far a code must be from others and their points: as a share of a narrow width, and down."""


@dataclass(frozen=True, slots=True)
class Point:
    """A place with its error upwards and downwards; `code` is written beside it."""

    x: float
    y: float
    colour: str
    code: str
    title: str
    error: float = 0.0
    front: bool = False
    hollow: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from `low` to `high` with ticks and their words."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    name: str
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0 to 1."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = (math.log(v) for v in (low, high, max(value, low)))
        return min(max((at - low) / ((high - low) or 1.0), 0.0), 1.0)


def scatter(
    points: Sequence[Point],
    *,
    x: Axis,
    y: Axis,
    described: str,
    height_px: int = 330,
    levels: Sequence[tuple[float, str, str]] = (),
    best_is_left: bool = True,
) -> Markup:
    """The points; the front is a stair through those marked. `levels`: height, words, colour."""
    plot = _Plot(x, y, height_px)
    drawn = [plot.level(height, colour) for height, _, colour in levels]
    drawn += plot.grid()
    drawn += plot.stair([point for point in points if point.front], left=best_is_left)
    ordered = sorted(points, key=lambda point: point.front)
    drawn += [plot.point(point) for point in ordered]
    drawn += [plot.level_name(at, height, words) for at, (height, words, _) in enumerate(levels)]
    drawn += plot.codes(ordered)
    return element(
        "svg",
        Markup("").join(drawn),
        width="100%",
        height=height_px,
        role="img",
        class_="scatter",
        aria_label=described,
    )


def logarithmic(values: Sequence[float], *, name: str, unit: str) -> Axis:
    """An axis over positive values with ticks at 1, 2 and 5 times powers of ten."""
    found = [value for value in values if value > 0] or [1.0]
    low, high = min(found) / 1.25, max(found) * 1.35
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 60 else (1,) if high / low > 3e3 else (1, 3)
    marks = [step * 10.0**power for power in powers for step in steps]
    ticks = tuple((mark, si(mark, unit)) for mark in marks if low <= mark <= high)
    return Axis(low, high, ticks, name, logarithmic=True)


def percent(values: Sequence[float], *, name: str) -> Axis:
    """An axis of shares that ends at 100 % and begins below the least."""
    least = min(values, default=0.0)
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if (1 - least) / s <= 6 or s == 0.25)
    low = max(math.floor(least / step + 1e-9) * step, 0.0)
    count = round((1 - low) / step)
    ticks = tuple((1 - step * at, f"{100 * (1 - step * at):.0f}") for at in range(count + 1))
    return Axis(low, 1.0, ticks, name)


def linear(values: Sequence[float], *, name: str) -> Axis:
    """An axis from 0 to beyond the largest value."""
    high = max(values, default=1.0) * 1.08 or 1.0
    power = 10.0 ** math.floor(math.log10(high / 6))
    step = next(power * f for f in (1, 2, 5, 10, 20) if high / (power * f) <= 6)
    ticks = tuple((step * at, f"{step * at:g}") for at in range(int(high / step) + 1))
    return Axis(0.0, high, ticks, name)


def si(value: float, unit: str) -> str:
    """A round figure with k or M before its unit.

    >>> si(20_000, "B"), si(3, "ms")
    ('20 kB', '3 ms')
    """
    for prefix, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g} {prefix}{unit}"
    return f"{value:g} {unit}"


class _Plot:
    def __init__(self, x: Axis, y: Axis, height_px: int) -> None:
        self._x, self._y = x, y
        self._bottom = height_px - _BOTTOM_PX

    def grid(self) -> list[Markup]:
        drawn = []
        for value, words in self._y.ticks:
            at = self.down(value)
            drawn.append(_line("0%", "100%", at, at, "grid"))
            drawn.append(_text(words, "0%", at - 4, "start", "tick"))
        for value, words in self._x.ticks:
            at_x = self.across(value)
            drawn.append(_line(at_x, at_x, _TOP_PX - 6, self._bottom, "grid"))
            drawn.append(_text(words, at_x, self._bottom + 15, "middle", "tick"))
        drawn.append(_text(self._x.name, "100%", self._bottom + 32, "end", "tick name"))
        drawn.append(_text(self._y.name, "0%", 11, "start", "tick name"))
        return drawn

    def level(self, height: float, colour: str) -> Markup:
        return _line("0%", "100%", self.down(height), self.down(height), f"level {colour}")

    def level_name(self, place: int, height: float, words: str) -> Markup:
        """Words of several levels stand side by side, however near the levels are."""
        return _text(words, f"{100 - 30 * place}%", self.down(height) - 6, "end", "level-name")

    def stair(self, points: Sequence[Point], *, left: bool) -> list[Markup]:
        """From each point of the front to the next, never promising what none of them gives."""
        chain = sorted(points, key=lambda point: (point.x, -point.y))
        best: list[Point] = []
        for point in chain:
            if not best or point.y > best[-1].y:
                best.append(point)
        drawn = []
        for one, other in pairwise(best):
            x1, x2 = self.across(one.x), self.across(other.x)
            y1, y2 = self.down(one.y), self.down(other.y)
            drawn += [_line(x1, x2, y1, y1, "front"), _line(x2, x2, y1, y2, "front")]
        if best and left:
            last = self.down(best[-1].y)
            drawn.append(_line(self.across(best[-1].x), "100%", last, last, "front"))
        return drawn

    def point(self, point: Point) -> Markup:
        x, y = self.across(point.x), self.down(point.y)
        parts = [element("title", point.title)]
        if point.error:
            top, foot = self.down(point.y + point.error), self.down(point.y - point.error)
            parts.append(_line(x, x, top, foot, "whisker"))
        kind = " hollow" if point.hollow else ""
        style = f"--c: {point.colour}"
        radius = 5.5 if point.front else 4
        parts.append(element("circle", cx=x, cy=y, r=radius, class_=f"point{kind}", style=style))
        return element(
            "g", Markup("").join(parts), class_="front-point" if point.front else "rest-point"
        )

    def codes(self, points: Sequence[Point]) -> list[Markup]:
        """Over all points, above their own or below it; none where both places are taken."""
        named = sorted((point for point in points if point.code), key=lambda point: -point.y)
        drawn: list[Markup] = []
        taken = [(self._x.share(point.x), self.down(point.y)) for point in named]
        for point in named:
            x, y = self._x.share(point.x), self.down(point.y)
            for middle in (y - 13, y + 14):
                free = (
                    abs(x - at) > _CODE_SHARE or abs(middle - up) > _CODE_PX for at, up in taken
                )
                if all(free):
                    taken.append((x, middle))
                    code = _text(point.code, self.across(point.x), middle + 4, "middle", "code")
                    drawn.append(code)
                    break
        return drawn

    def across(self, value: float) -> str:
        return f"{_INNER_LEFT + (_INNER_RIGHT - _INNER_LEFT) * self._x.share(value):.2f}%"

    def down(self, value: float) -> float:
        return self._bottom - (self._bottom - _TOP_PX) * self._y.share(value)


def _line(x1: str, x2: str, y1: float, y2: float, kind: str) -> Markup:
    return element("line", x1=x1, x2=x2, y1=y1, y2=y2, class_=kind)


def _text(words: str, x: str, y: float, anchor: str, kind: str) -> Markup:
    return element("text", words, x=x, y=y, text_anchor=anchor, class_=kind)

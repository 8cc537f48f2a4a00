"""Charts as inline SVG: pure functions from values to markup, every text escaped.

Lengths across are percentages, so that one drawing fits a telephone and a wall while its text
keeps its size. Colours are classes of the page's style sheet.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_NARROWEST_BAR_PX = 300
"""The width on a telephone, for which it is decided whether a label fits into its part."""
_CHARACTER_PX = 6.4
_BENEATH_PX = 4

Attribute = str | float


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a bar: its length in the scale's unit, its colour's class, what it says.

    The first of `labels` that fits is written into it, `title` is shown by pointing at it.
    """

    colour: str
    length: float
    title: str
    labels: tuple[str, ...] = ()


def element(name: str, content: str = "", **attributes: Attribute) -> Markup:
    """One element; `class_` and `text_anchor` are written as class and text-anchor.

    >>> element("title", "a < b")
    Markup('<title>a &lt; b</title>')
    >>> element("rect", x="5%", class_="network")
    Markup('<rect x="5%" class="network"></rect>')
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _plain(value))
        for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, escape(content))


def bar(
    parts: Sequence[Part],
    *,
    scale: float,
    height_px: int,
    described: str,
    mark: float | None = None,
    mark_title: str = "",
    dot: float | None = None,
    dot_title: str = "",
    beneath: Part | None = None,
    beneath_ends: str = "",
    ticks: Sequence[float] = (),
) -> Markup:
    """Stretches one after the other from 0 to at most `scale`, a mark, a dot, a thin bar beneath.

    `beneath` ends where the stretch of the colour `beneath_ends` does, which it ran along with.
    """
    drawn = [
        element(
            "line", x1=_percent(t, scale), x2=_percent(t, scale), y1=0, y2="100%", class_="grid"
        )
        for t in ticks
    ]
    body_px = height_px - 8
    if beneath:
        height_px += _BENEATH_PX + 1
    start, ends = 0.0, dict[str, float]()
    for part in parts:
        drawn += _stretch(part, start, scale=scale, height_px=body_px)
        start += part.length
        ends[part.colour] = start
    if beneath:
        at = max(min(ends.get(beneath_ends, start), scale) - beneath.length, 0.0)
        drawn.append(
            _rect(beneath, at, scale=scale, y_px=height_px - 3 - _BENEATH_PX, height_px=_BENEATH_PX)
        )
    if dot is not None:
        drawn.append(_dot(dot, dot_title, scale=scale, y_px=4 + body_px / 2))
    if mark is not None:
        drawn.append(_mark(mark, mark_title, scale=scale))
    return _drawing(drawn, height_px=height_px, described=described)


def axis(ticks: Sequence[float], *, scale: float, unit: str) -> Markup:
    """Figures under a bar's grid; the unit stands with the last."""
    drawn = []
    for position, tick in enumerate(ticks):
        last = position == len(ticks) - 1
        anchor = "start" if position == 0 else "end" if tick > 0.93 * scale else "middle"
        text = f"{tick:g} {unit}" if last else f"{tick:g}"
        drawn.append(
            element("text", text, x=_percent(tick, scale), y=12, text_anchor=anchor, class_="tick")
        )
    return _drawing(drawn, height_px=16, described=f"scale in {unit}")


def column(count: int, *, of: int, colour: str, title: str, height_px: int = 40) -> Markup:
    """An upright bar for a share, its count above it; a line at the foot where there is none."""
    room_px = height_px - 16
    drawn = [element("line", x1="8%", x2="92%", y1=height_px - 1, y2=height_px - 1, class_="foot")]
    if count:
        tall_px = max(room_px * count / max(of, 1), 2.0)
        top_px = height_px - 1 - tall_px
        box = element(
            "rect",
            element("title", title),
            x="14%",
            width="72%",
            y=top_px,
            height=tall_px,
            class_=f"fill {colour}",
        )
        figure = element("text", str(count), x="50%", y=top_px - 3, class_="figure")
        drawn += [box, figure]
    return _drawing(drawn, height_px=height_px, described=title)


def whisker(value: float, error: float, *, low: float, high: float, title: str) -> Markup:
    """A dot with its standard error to either side, on a scale from `low` to `high`."""
    span = (high - low) or 1.0
    left, right = (_clamp(value - error, low, high) - low, _clamp(value + error, low, high) - low)
    at = _percent(_clamp(value, low, high) - low, span)
    return _drawing(
        [
            element("line", x1="0%", x2="100%", y1=9, y2=9, class_="grid"),
            element(
                "line",
                x1=_percent(left, span),
                x2=_percent(right, span),
                y1=9,
                y2=9,
                class_="error",
            ),
            element("circle", element("title", title), cx=at, cy=9, r=4, class_="dot"),
        ],
        height_px=18,
        described=title,
    )


def nice_ticks(limit: float, *, at_most: int = 6) -> list[float]:
    """Round figures from 0 to `limit`: steps of 1, 2 or 5 times a power of ten.

    >>> nice_ticks(430)
    [0.0, 100.0, 200.0, 300.0, 400.0]
    """
    if not math.isfinite(limit) or limit <= 0:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(limit / at_most))
    step = next(power * f for f in (1, 2, 5, 10, 20) if limit / (power * f) <= at_most)
    return [step * position for position in range(int(limit / step) + 1)]


def _stretch(part: Part, start: float, *, scale: float, height_px: float) -> list[Markup]:
    drawn = [_rect(part, start, scale=scale, y_px=4, height_px=height_px)]
    visible = max(min(start + part.length, scale) - start, 0.0)
    width_px = visible / scale * _NARROWEST_BAR_PX if scale > 0 else 0.0
    label = next((text for text in part.labels if len(text) * _CHARACTER_PX + 4 < width_px), "")
    if label:
        drawn.append(
            element(
                "text",
                label,
                x=_percent(start + visible / 2, scale),
                y=4 + height_px / 2,
                class_=f"in {part.colour}",
            )
        )
    return drawn


def _rect(part: Part, start: float, *, scale: float, y_px: float, height_px: float) -> Markup:
    return element(
        "rect",
        element("title", part.title),
        x=_percent(start, scale),
        width=_percent(min(part.length, max(scale - start, 0.0)), scale),
        y=y_px,
        height=height_px,
        class_=f"fill {part.colour}",
    )


def _mark(at: float, title: str, *, scale: float) -> Markup:
    x = _percent(min(at, scale), scale)
    line = element("line", x1=x, x2=x, y1=0, y2="100%", class_="mark")
    touch = element("line", x1=x, x2=x, y1=0, y2="100%", class_="touch")
    return element("g", element("title", title) + line + touch)


def _dot(at: float, title: str, *, scale: float, y_px: float) -> Markup:
    x = _percent(min(at, scale), scale)
    return element("circle", element("title", title), cx=x, cy=y_px, r=3.5, class_="dot")


def _drawing(parts: Sequence[Markup], *, height_px: int, described: str) -> Markup:
    return element(
        "svg",
        Markup("").join(parts),
        width="100%",
        height=height_px,
        role="img",
        aria_label=described,
    )


def _percent(length: float, scale: float) -> str:
    return f"{_plain(100 * length / scale if scale > 0 else 0.0)}%"


def _plain(value: Attribute) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)

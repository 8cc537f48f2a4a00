"""The large model as SVG: a strip for a block, a cell per row of its lanes. Pure."""

import math

from markupsafe import Markup

from ..svg import element
from .blocks import Block
from .lanes import LaneRow

_LANE_PX = 11
_LEFT_PX = 9
_STRIP_ROW_PX = 17
_STRIP_LANE_PX = 10
_STRIP_MARGIN_PX = 7
_MOST_LANES = 40


def lane_cell(row: LaneRow, *, lanes: int, work: float = 0.0) -> Markup:
    """A row's lanes, drawn as high as its text makes it; the dot's size tells its work."""
    strokes = [
        element(
            "line",
            x1=_x(line.from_lane),
            x2=_x(line.to_lane),
            y1=f"{50 * line.from_level}%",
            y2=f"{50 * line.to_level}%",
            class_="lane" if line.to_level == 1 or line.from_level == 1 else "lane aside",
        )
        for line in row.lines
    ]
    dot = element("circle", cx=_x(row.lane), cy="50%", r=_radius(work), class_="op")
    return element(
        "svg",
        Markup("").join([*strokes, dot]),
        class_="lanes",
        width=lane_width(lanes),
        aria_hidden="true",
    )


def lane_width(lanes: int) -> int:
    """What a cell takes, in pixels."""
    return 2 * _LEFT_PX + _LANE_PX * (min(lanes, _MOST_LANES) - 1)


def strip(block: Block, *, most_rows: int) -> Markup:
    """A block's shape at a glance: time goes to the right, what is kept for later goes below.

    `most_rows` is the longest block's, so that all strips have one scale.
    """
    rows = [chain.row for chain in block.chains]
    deepest = max((_deepest(row) for row in rows), default=0)
    height = 2 * _STRIP_MARGIN_PX + _STRIP_LANE_PX * deepest
    width = _STRIP_ROW_PX * len(rows)
    drawn = [
        element(
            "line",
            x1=_STRIP_ROW_PX * (at + line.from_level / 2),
            x2=_STRIP_ROW_PX * (at + line.to_level / 2),
            y1=_y(line.from_lane),
            y2=_y(line.to_lane),
            class_="lane" if line.to_level == 1 or line.from_level == 1 else "lane aside",
        )
        for at, row in enumerate(rows)
        for line in row.lines
    ]
    drawn += [
        element(
            "circle",
            cx=_STRIP_ROW_PX * (at + 0.5),
            cy=_y(chain.row.lane),
            r=3.5,
            class_="op",
        )
        for at, chain in enumerate(block.chains)
    ]
    share = 100 * len(rows) / max(most_rows, 1)
    return element(
        "svg",
        Markup("").join(drawn),
        viewBox=f"0 0 {width} {height}",
        class_="strip",
        style=f"width: min({share:.1f}%, {width}px)",
        role="img",
        aria_label=f"{len(rows)} steps, at most {deepest + 1} tensors side by side",
    )


def _deepest(row: LaneRow) -> int:
    return max((max(line.from_lane, line.to_lane) for line in row.lines), default=row.lane)


def _x(lane: int) -> int:
    return _LEFT_PX + _LANE_PX * min(lane, _MOST_LANES - 1)


def _y(lane: int) -> int:
    return _STRIP_MARGIN_PX + _STRIP_LANE_PX * lane


def _radius(work: float) -> float:
    """Area goes with work."""
    return 2.5 + 4 * math.sqrt(min(work * 5, 1.0))

"""Lays a graph out in lanes, as a version history is drawn: a row per step, a lane per live tensor.

Where one lane is left, the model can be cut at one tensor. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """What is laid out: the tensors a row reads and makes."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A stroke of a row: between lanes at its top edge (0), its middle (1) or its bottom (2)."""

    from_lane: int
    from_level: int
    to_lane: int
    to_level: int


@dataclass(frozen=True, slots=True)
class LaneRow:
    """One row: the lane of its dot, its strokes, and how many tensors are live below it."""

    lane: int
    lines: tuple[Line, ...]
    live: int


def lay_out(
    steps: Sequence[Step], *, inputs: Sequence[str], outputs: Sequence[str]
) -> list[LaneRow]:
    """A row per step. The newest tensor goes straight on; what is kept for later moves aside."""
    last_use = {name: at for at, step in enumerate(steps) for name in step.reads}
    last_use |= dict.fromkeys(outputs, len(steps))
    lanes = {name: lane for lane, name in enumerate(inputs)}
    rows = []
    for at, step in enumerate(steps):
        after, dot = _after(step, lanes, last_use, at)
        rows.append(LaneRow(dot, tuple(_lines(step, lanes, after, dot)), len(after)))
        lanes = after
    return rows


def width(rows: Sequence[LaneRow]) -> int:
    """How many lanes there are."""
    used = (lane for row in rows for line in row.lines for lane in (line.from_lane, line.to_lane))
    return 1 + max((*used, *(row.lane for row in rows)), default=0)


def _after(
    step: Step, lanes: Mapping[str, int], last_use: Mapping[str, int], at: int
) -> tuple[dict[str, int], int]:
    """The lanes below a row, and the lane of its dot."""
    stay = {name: lane for name, lane in lanes.items() if last_use.get(name, -1) > at}
    read = [lanes[name] for name in step.reads if name in lanes]
    dot = min(read, default=_free(stay.values()))
    after = {name: lane for name, lane in stay.items() if lane != dot}
    made = [name for name in step.writes if last_use.get(name, -1) > at]
    for name in made:
        after[name] = dot if name == made[0] else _free([dot, *after.values()])
    for name, lane in stay.items():
        if lane == dot:  # somebody needs it later: it makes room for what is new
            after[name] = _free(after.values()) if made else lane
    return after, dot


def _lines(step: Step, before: Mapping[str, int], after: Mapping[str, int], dot: int) -> list[Line]:
    lines = [Line(before[name], 0, dot, 1) for name in step.reads if name in before]
    lines += [Line(lane, 0, after[name], 2) for name, lane in before.items() if name in after]
    lines += [Line(dot, 1, after[name], 2) for name in step.writes if name in after]
    return list(dict.fromkeys(lines))


def _free(taken: Iterable[int]) -> int:
    used = set(taken)
    return next(lane for lane in range(len(used) + 1) if lane not in used)

"""The bundle's measured table, as a page shows it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..shared.manifest import PlanRow, Rate
from .run import colour_of
from .svg import whisker
from .words import NOTHING, SPACE, bytes_words, count_words, rate_words

_LARGE_ERROR = 0.02
"""From here on an error may hide what a better plan would gain."""


@dataclass(frozen=True, slots=True)
class PlanFigures:
    """One plan's line."""

    plan: str
    colour: str
    agreement: str
    whisker: Markup
    accuracy: str
    bytes_p50: str
    bytes_p95: str
    taken: int


@dataclass(frozen=True, slots=True)
class PlanTable:
    """All plans by what they send, the scale of the dots, and how sure they are."""

    title: str
    lines: list[PlanFigures]
    low: str
    note: str


def plan_table(table: Sequence[PlanRow], taken: Mapping[str, int]) -> PlanTable:
    """The table with how often each plan was `taken`."""
    rows = sorted(table, key=lambda row: (row.bytes_p50, row.plan))
    worst = min((r.agreement.value - r.agreement.standard_error for r in rows), default=0.0)
    low = max(math.floor(10 * worst) / 10, 0.0)
    return PlanTable(
        title=_title(rows),
        lines=[_line(row, low=low, taken=taken.get(row.plan, 0)) for row in rows],
        low=rate_words(low),
        note=_note([row.agreement for row in rows]),
    )


def _line(row: PlanRow, *, low: float, taken: int) -> PlanFigures:
    agreement = _rate(row.agreement)
    return PlanFigures(
        plan=row.plan,
        colour=colour_of(row.plan),
        agreement=agreement,
        whisker=whisker(
            row.agreement.value,
            row.agreement.standard_error,
            low=low,
            high=1.0,
            title=f"{row.plan}: {agreement} on {count_words(row.agreement.samples, 'picture')}",
        ),
        accuracy=_rate(row.accuracy) if row.accuracy else NOTHING,
        bytes_p50=bytes_words(row.bytes_p50) if row.bytes_p50 else NOTHING,
        bytes_p95=bytes_words(row.bytes_p95) if row.bytes_p95 else NOTHING,
        taken=taken,
    )


def _rate(rate: Rate) -> str:
    value = rate_words(rate.value, digits=1).removesuffix("%")
    return f"{value}±{SPACE}{100 * rate.standard_error:.1f}{SPACE}%"


def _title(rows: Sequence[PlanRow]) -> str:
    if not rows:
        return "The bundle's table is empty"
    best = max(rows, key=lambda row: (row.agreement.value, -row.bytes_p50))
    words = f"{rate_words(best.agreement.value)} by {best.plan}"
    alone = next((row for row in rows if row.plan == "local"), None)
    if alone and alone is not best:
        words = f"{rate_words(alone.agreement.value)} by the device alone, {words}"
    return f"Agreement with the large model: {words}"


def _note(rates: Sequence[Rate]) -> str:
    if not rates:
        return ""
    largest = max(rate.standard_error for rate in rates)
    fewest = min(rate.samples for rate in rates)
    errors = f"standard errors of up to {100 * largest:.1f} points"
    measured = f"These shares were measured on {count_words(fewest, 'picture')}"
    if largest < _LARGE_ERROR:
        return f"{measured} kept out of calibration, with {errors}."
    return (
        f"{measured} kept out of calibration. That is few: it leaves {errors}, and a difference "
        f"smaller than that between two plans is no difference. The router treats it as a tie, "
        f"and so should you. Build with more pictures before choosing a plan by this table."
    )

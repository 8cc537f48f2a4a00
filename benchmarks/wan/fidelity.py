"""How far simulated cells are from the same cells in the laboratory. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table

from hybridge.cli.console import table

from .arrivals import Arrivals, arrival_times_s
from .records import Cell, Measured
from .scoring import Score, Wanted, score


@dataclass(frozen=True, slots=True)
class Compared:
    """One cell in the laboratory and simulated; differences are the simulation's less the other."""

    cell: Cell
    laboratory: Score
    simulated: Score

    @property
    def in_budget(self) -> float:
        return self.simulated.in_budget - self.laboratory.in_budget

    @property
    def agreement(self) -> float:
        return self.simulated.agreement - self.laboratory.agreement

    @property
    def p50_ms(self) -> float:
        return self.simulated.p50_ms - self.laboratory.p50_ms

    def as_json(self) -> dict[str, Any]:
        return {
            "cell": self.cell.name,
            "laboratory": asdict(self.laboratory),
            "simulated": asdict(self.simulated),
        }


def compare(laboratory: Measured, simulated: Measured, wanted: Wanted) -> Compared:
    """ValueError if they are not of one cell."""
    if laboratory.cell != simulated.cell:
        raise ValueError(f"{simulated.cell.name} is not {laboratory.cell.name}")
    return Compared(
        laboratory.cell, score(laboratory.records, wanted), score(simulated.records, wanted)
    )


def arrivals_of(measured: Measured) -> Arrivals:
    """How the requests of a finished cell came: its file does not say, but their times do."""
    cell = measured.cell
    came_s = np.diff([record.scheduled_s for record in measured.records])

    def distance(kind: Arrivals) -> float:
        times_s = arrival_times_s(cell.requests, rate_hz=cell.rate_hz, seed=cell.seed, kind=kind)
        return float(np.abs(np.diff(times_s) - came_s).sum())

    return min(Arrivals, key=distance)


def error_figures(compared: Sequence[Compared]) -> dict[str, float]:
    """The size of the differences over all cells: the mean, and the largest."""
    columns = {
        "in_budget": [each.in_budget for each in compared],
        "agreement": [each.agreement for each in compared],
        "p50_ms": [each.p50_ms for each in compared],
        "p50_share": [each.p50_ms / each.laboratory.p50_ms for each in compared],
    }
    return {
        f"{name}_{what}": float(of(np.abs(values)))
        for name, values in columns.items()
        for what, of in (("mean", np.mean), ("max", np.max))
    }


def error_table(compared: Sequence[Compared]) -> Table:
    """A row per cell, the laboratory's figure before the simulation's."""
    columns = ("link", "budget ms", "policy", "in budget", "agreement", "points", "p50 ms", "ms")
    rows = [
        (
            each.cell.link,
            f"{each.cell.budget_ms:g}",
            each.cell.policy,
            f"{each.laboratory.in_budget:.2%} | {each.simulated.in_budget:.2%}",
            f"{each.laboratory.agreement:.1%} | {each.simulated.agreement:.1%}",
            f"{100 * each.agreement:+.1f}",
            f"{each.laboratory.p50_ms:.0f} | {each.simulated.p50_ms:.0f}",
            f"{each.p50_ms:+.0f}",
        )
        for each in compared
    ]
    return table("the laboratory | the simulation", columns, rows)

from dataclasses import replace

import pytest
from wan.arrivals import Arrivals, arrival_times_s
from wan.fidelity import arrivals_of, compare, error_figures
from wan.records import Cell, Measured

from .test_scoring import WANTED, record

CELL = Cell("imagenet", "lte", 100.0, "ours", 4, 10.0)


def test_differences_are_the_simulations_less_the_laboratorys() -> None:
    real = Measured(CELL, [record(index, ms=40) for index in range(4)])
    slow = Measured(CELL, [record(0, ms=101), *(record(index, ms=60) for index in range(1, 4))])
    exact, off = compare(real, real, WANTED), compare(real, slow, WANTED)
    assert (exact.in_budget, exact.agreement, exact.p50_ms) == (0, 0, 0)
    assert (off.in_budget, off.agreement, off.p50_ms) == (-0.25, -0.25, 20)
    found = error_figures([exact, off])
    assert (found["in_budget_mean"], found["in_budget_max"]) == (0.125, 0.25)
    assert (found["p50_ms_mean"], found["p50_ms_max"], found["p50_share_max"]) == (10, 20, 0.5)


def test_only_the_same_cell_is_compared() -> None:
    real = Measured(CELL, [record(0)])
    with pytest.raises(ValueError, match="is not"):
        compare(real, Measured(replace(CELL, policy="local"), [record(0)]), WANTED)


@pytest.mark.parametrize("kind", list(Arrivals))
def test_how_requests_came_is_seen_in_their_times(kind: Arrivals) -> None:
    cell = replace(CELL, requests=30, seed=3)
    times_s = arrival_times_s(30, rate_hz=cell.rate_hz, seed=3, kind=kind)
    records = [
        replace(record(index), scheduled_s=5_000 + at_s) for index, at_s in enumerate(times_s)
    ]
    assert arrivals_of(Measured(cell, records)) is kind

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.prices import Prices
from hybridge.shared.errors import ConfigError
from hybridge.shared.objective import Objective

NAMES = ("device_w", "joules_per_mb", "per_gb", "per_cloud_hour")


def test_figures() -> None:
    prices = Prices(device_w=2.0, joules_per_mb=5.0, per_gb=10.0, per_cloud_hour=36.0)
    assert prices.energy_j(device_ms=500.0, size_bytes=200_000) == 1.0 + 1.0
    assert prices.money(size_bytes=100_000_000, cloud_ms=100_000.0) == pytest.approx(1.0 + 1.0)


def test_out_of_the_box_only_energy_is_priced() -> None:
    assert Prices().money(size_bytes=10**9, cloud_ms=3.6e6) == 0.0
    assert Prices().energy_j(device_ms=1000.0, size_bytes=10**6) == pytest.approx(2.4 + 5.6)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 10**9), st.integers(0, 10**9))
def test_more_never_costs_less(one: float, two: float, few: int, many: int) -> None:
    less_ms, more_ms = sorted((one, two))
    less, more = sorted((few, many))
    prices = Prices(per_gb=5.0, per_cloud_hour=1.0)
    assert (
        0
        <= prices.energy_j(device_ms=less_ms, size_bytes=less)
        <= prices.energy_j(device_ms=more_ms, size_bytes=more)
    )
    assert (
        0
        <= prices.money(size_bytes=less, cloud_ms=less_ms)
        <= prices.money(size_bytes=more, cloud_ms=more_ms)
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_a_price_below_nothing(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        Prices(**{name: value})


@pytest.mark.parametrize(
    ("objective", "prices", "words"),
    [
        (Objective.COST, Prices(), "--price-per-gb"),
        (Objective.COST, Prices(per_cloud_hour=1.0), ""),
        (Objective.ENERGY, Prices(device_w=0.0, joules_per_mb=0.0), "--device-watts"),
        (Objective.ENERGY, Prices(), ""),
        (Objective.BYTES, Prices(device_w=0.0, joules_per_mb=0.0), ""),
    ],
)
def test_an_objective_without_its_figures_is_told(
    objective: Objective, prices: Prices, words: str
) -> None:
    said = prices.missing(objective)
    assert words in said
    assert bool(said) == bool(words)

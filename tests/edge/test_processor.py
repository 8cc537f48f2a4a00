"""What a ms of the processor is worth, and that the price brings its use to what is wanted."""

import pytest

from hybridge.edge.processor import ProcessorLoad


def settle(
    load: ProcessorLoad, demand_at: "dict[float, float]", *, seconds: int
) -> tuple[list[float], list[float]]:
    """Runs a processor whose use falls with the price; the shares that were used, and prices."""
    used, prices, cpu_s = [], [], 0.0
    for tick in range(seconds * 4):
        wanted = next(share for price, share in demand_at.items() if load.price_per_ms <= price)
        used.append(min(wanted, 1.0))
        cpu_s += used[-1] * 0.25
        load.read(cpu_s, now_s=(tick + 1) * 0.25)
        prices.append(load.price_per_ms)
    return used, prices


def test_with_time_to_spare_nothing_costs() -> None:
    load = ProcessorLoad()
    settle(load, {float("inf"): 0.7}, seconds=60)
    assert load.price_per_ms == 0.0


def test_the_price_brings_the_use_to_what_is_wanted() -> None:
    load = ProcessorLoad()
    load.read(0.0, now_s=0.0)
    used, prices = settle(load, {0.002: 1.6, 0.006: 1.0, float("inf"): 0.6}, seconds=60)
    assert used[0] == 1.0
    assert sum(used[40:]) / len(used[40:]) == pytest.approx(0.88, abs=0.05)
    assert sum(prices[40:]) / len(prices[40:]) == pytest.approx(0.006, abs=0.002)


def test_once_there_is_time_again_nothing_costs() -> None:
    load = ProcessorLoad()
    load.read(0.0, now_s=0.0)
    cpu_s = 0.0
    for tick in range(1, 40):
        cpu_s += 0.25 if tick < 20 else 0.1
        load.read(cpu_s, now_s=tick * 0.25)
    assert load.price_per_ms == 0.0


def test_a_board_that_seemed_smaller_than_it_is_is_found_out() -> None:
    load = ProcessorLoad(wall_per_cpu=10.0)
    load.read(0.0, now_s=0.0)
    load.read(0.25, now_s=1.0)  # a quarter of a core, where a tenth was thought to be all
    for tick in range(40):
        share = load.read(0.25 + 0.125 * (tick + 1), now_s=tick + 2.0)
    assert share == pytest.approx(0.5, abs=0.01)
    assert load.price_per_ms == 0.0

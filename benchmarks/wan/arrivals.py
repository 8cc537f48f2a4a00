"""When requests come and what they show, fixed in advance: an open loop. Pure."""

import random
from enum import StrEnum


class Arrivals(StrEnum):
    """`even`: one every 1/rate s, moved by up to a quarter of that; `poisson`: independent ones."""

    EVEN = "even"
    POISSON = "poisson"


_MOVED = 0.25


def arrival_times_s(
    count: int, *, rate_hz: float, seed: int, kind: Arrivals = Arrivals.POISSON
) -> list[float]:
    """When each comes, in s from the first possible instant, in order."""
    if rate_hz <= 0:
        raise ValueError(f"a rate must be above 0, not {rate_hz}")
    chance = random.Random(f"arrivals/{seed}")
    if kind is Arrivals.EVEN:
        shift = [chance.uniform(-_MOVED, _MOVED) for _ in range(count)]
        return [(position + 0.5 + moved) / rate_hz for position, moved in enumerate(shift)]
    times_s, now_s = [], 0.0
    for _ in range(count):
        now_s += chance.expovariate(rate_hz)
        times_s.append(now_s)
    return times_s


def shown(count: int, *, pictures: int, seed: int) -> list[int]:
    """Which picture each request shows: all of them once, in random order, then all again."""
    chance = random.Random(f"pictures/{seed}")
    order: list[int] = []
    while len(order) < count:
        order += chance.sample(range(pictures), pictures)
    return order[:count]

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.processor import WANTED
from hybridge.edge.rate import MOST_LOAD, Gaps, Rate, crowd_ms

instants = st.lists(st.floats(-1e6, 1e6), max_size=40)


@given(st.floats(0.5, 200), st.integers(50, 400))
def test_a_steady_rate_is_learnt(hz: float, events: int) -> None:
    rate = Rate()
    for event in range(max(events, round(12 * hz))):
        rate.count(now_s=event / hz)
        last_s = event / hz
    # What is seen right after an event counts it whole: half an event more than the average.
    assert rate.hz(now_s=last_s) == pytest.approx(hz, abs=0.3 + 0.01 * hz)


@given(instants, st.floats(-1e6, 2e6), st.floats(0, 1e6))
def test_it_fades_and_is_never_negative(
    events_s: list[float], now_s: float, later_s: float
) -> None:
    rate = Rate()
    for at_s in events_s:  # also backwards: clocks jump
        rate.count(now_s=at_s)
    now, later = rate.hz(now_s=now_s), rate.hz(now_s=now_s + later_s)
    assert 0.0 <= later <= now < math.inf
    assert now <= 11 * len(events_s)  # all within the last tenth of a second


@given(st.floats(5, 50), st.floats(0.5, 5))
def test_it_is_known_from_the_first_half_second(hz: float, seconds: float) -> None:
    rate = Rate()
    for event in range(1 + round(hz * seconds)):
        rate.count(now_s=event / hz)
    assert rate.hz(now_s=event / hz) == pytest.approx(hz, rel=0.3)


@given(st.floats(0.1, 50))
def test_some_count_for_more(weight: float) -> None:
    once, many = Rate(), Rate()
    once.count(now_s=0.0)
    many.count(now_s=0.0, weight=weight)
    assert many.hz(now_s=1.0) == pytest.approx(weight * once.hz(now_s=1.0))


def test_nothing_happened() -> None:
    assert Rate().hz(now_s=5.0) == 0.0


@given(st.floats(0, 1e6), st.floats(0, 100), st.floats(0, 100))
def test_a_crowd_is_longer_the_more_come_and_finite(own_ms: float, one: float, two: float) -> None:
    few, many = sorted((one, two))
    assert 0.0 <= crowd_ms(own_ms, load=few) <= crowd_ms(own_ms, load=many)
    assert crowd_ms(own_ms, load=many) <= own_ms * (MOST_LOAD / (1 - MOST_LOAD))


def test_nobody_else_means_no_waiting() -> None:
    assert crowd_ms(10.0, load=0.0) == 0.0
    assert crowd_ms(0.0, load=5.0) == 0.0
    assert crowd_ms(10.0, load=0.75) == pytest.approx(30.0)


@given(st.floats(0.1, 1e3), st.floats(0.01, MOST_LOAD), st.floats(0.0, 1.0))
def test_who_comes_regularly_waits_less_but_only_where_there_is_room(
    own_ms: float, load: float, waited: float
) -> None:
    by_chance_ms = crowd_ms(own_ms, load=load)
    ms = crowd_ms(own_ms, load=load, waited=waited)
    spared_ms = (1.0 - waited) * crowd_ms(own_ms, load=min(load, WANTED))
    assert ms == pytest.approx(by_chance_ms - spared_ms, abs=1e-9 * by_chance_ms)


def test_nothing_is_known_of_how_regularly_things_happen() -> None:
    gaps = Gaps()
    assert gaps.variation2 == 1.0
    gaps.count(now_s=100.0)
    gaps.count(now_s=100.0)  # at once
    gaps.count(now_s=100.1)
    assert gaps.variation2 == 1.0


@given(st.floats(1e-3, 9.0), st.floats(0.0, 1e6))
def test_what_happens_by_the_clock_is_regular(gap_s: float, begin_s: float) -> None:
    gaps = Gaps()
    for tick in range(200):
        gaps.count(now_s=begin_s + tick * gap_s)
    assert gaps.variation2 < 0.01


def test_what_happens_by_chance_is_not_and_bursts_are_less_so() -> None:
    random, by_chance, in_bursts = Random(1), Gaps(), Gaps()
    seen, now_s = [], 0.0
    for event in range(2_000):
        now_s += random.expovariate(10.0)
        by_chance.count(now_s=now_s)
        seen.append(by_chance.variation2)
        in_bursts.count(now_s=event // 10 + event % 10 / 1e3)
    assert 0.6 < sum(seen) / len(seen) < 1.1
    assert in_bursts.variation2 > 1.2


def test_a_pause_or_a_clock_that_is_set_back_does_not_last() -> None:
    gaps, now_s = Gaps(), 0.0
    for tick in range(300):
        now_s += {100: 1e5, 150: -1e5}.get(tick, 0.1)
        gaps.count(now_s=now_s)
        assert 0.0 <= gaps.variation2 <= 4.0
    assert gaps.variation2 < 0.2

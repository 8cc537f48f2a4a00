import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.rate import MOST_LOAD, Rate, crowd_ms

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
    assert crowd_ms(own_ms, load=many) <= own_ms * MOST_LOAD / (1 - MOST_LOAD)


def test_nobody_else_means_no_waiting() -> None:
    assert crowd_ms(10.0, load=0.0) == 0.0
    assert crowd_ms(0.0, load=5.0) == 0.0
    assert crowd_ms(10.0, load=0.75) == pytest.approx(30.0)

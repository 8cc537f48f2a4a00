"""What surprises, disappointments and new connections teach the estimate of a link."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .ideal_link import Link, learnt


def test_after_a_surprise_one_is_unsure_until_the_next_exchange() -> None:
    link = learnt()
    assert not link.estimate.unsure
    link.exchange(400, stretched=20.0)
    assert link.estimate.unsure
    link.exchange(400)
    assert not link.estimate.unsure


@pytest.mark.parametrize("late_bytes", [400, 24_000])
def test_how_much_is_tried_after_something_came_late(late_bytes: int) -> None:
    """A few bytes say nothing of many; an upload that should take most of the time, much."""
    link = learnt(rtt_ms=20.0, up_bps=4e6)
    before_kb = link.estimate.transfer(now_s=link.now_s).reach_kb
    assert before_kb > 30.0
    exchange = link.begin(late_bytes)
    link.now_s += 20 * link.takes_ms(late_bytes) / 1e3
    link.estimate.finish(exchange, now_s=link.now_s)
    after_kb = link.estimate.transfer(now_s=link.now_s).reach_kb
    assert after_kb == pytest.approx(before_kb if late_bytes == 400 else 12.0, rel=0.05)


@pytest.mark.parametrize(("late_bytes", "left_kb"), [(24_000, 60.0), (59_000, 29.5)])
def test_where_the_way_is_long_a_size_like_the_largest_tells_of_it(
    late_bytes: int, left_kb: float
) -> None:
    link = learnt(rtt_ms=500.0)
    exchange = link.begin(late_bytes)
    assert not exchange.mostly_up
    link.now_s += 20 * link.takes_ms(late_bytes) / 1e3
    link.estimate.finish(exchange, now_s=link.now_s)
    reach_kb = link.estimate.transfer(now_s=link.now_s).reach_kb
    assert reach_kb == pytest.approx(left_kb, rel=0.05)


def test_a_few_bytes_that_are_late_do_not_hide_that_many_are() -> None:
    link = learnt(rtt_ms=20.0, up_bps=4e6)
    many, few = link.begin(24_000), link.begin(400)
    late_s = link.now_s + 20 * link.takes_ms(24_000) / 1e3
    few_s = few.due_s + 1e-3
    link.estimate.finish(few, now_s=few_s)
    link.estimate.finish(many, now_s=late_s)
    assert link.estimate.transfer(now_s=late_s).reach_kb == pytest.approx(12.0, rel=0.05)


@given(st.floats(5, 500), st.floats(1.0, 6.0))
def test_the_round_trips_that_connecting_takes_are_not_taken_for_one(
    rtt_ms: float, round_trips: float
) -> None:
    link = Link(rtt_ms)
    connecting = link.estimate.begin(150, now_s=link.now_s, connects=True)
    link.now_s += round_trips * rtt_ms / 1e3
    link.estimate.finish(connecting, now_s=link.now_s)
    assert link.mean_ms(150) > 0.0
    link.exchange(150, 150)
    assert link.median_ms(150) == pytest.approx(link.takes_ms(150), rel=0.25)


def test_a_link_that_is_known_is_not_forgotten_over_a_new_connection() -> None:
    link = learnt()
    before_ms = link.median_ms(400)
    link.estimate.broken()
    connecting = link.estimate.begin(150, now_s=link.now_s, connects=True)
    link.estimate.finish(connecting, now_s=link.now_s + 4 * link.rtt_ms / 1e3)
    link.now_s += 1.0
    assert link.median_ms(400) == pytest.approx(before_ms, rel=0.1)
    assert not link.estimate.unsure

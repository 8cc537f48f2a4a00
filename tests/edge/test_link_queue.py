"""What exchanges that queued behind one another teach of a link, and what they leave waiting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .ideal_link import Link, learnt


@given(st.floats(50, 150), st.floats(1e6, 3e6))
def test_frames_of_one_size_that_queue_tell_the_rate_from_the_round_trip(
    rtt_ms: float, up_bps: float
) -> None:
    link = learnt(1, rtt_ms=100.0, up_bps=3e6)
    link.rtt_ms, link.up_bps = rtt_ms, up_bps
    link.stream(*[(0.8, 12_000), (0.0, 12_000), (0.0, 12_000)] * 20)
    here = link.estimate.reading(now_s=link.now_s)
    assert here.up_bps == pytest.approx(up_bps, rel=0.1)
    assert here.rtt_ms == pytest.approx(rtt_ms, rel=0.15)


@given(st.floats(0.3, 0.8))
def test_a_rate_that_falls_beneath_what_is_sent_is_no_longer_round_trip(share: float) -> None:
    link = learnt(rtt_ms=150.0, up_bps=1.5e6)
    link.stream(*[(0.08, 12_000)] * 20)
    link.up_bps = share * 1.2e6
    link.stream(*[(0.08, 12_000)] * 20)
    here = link.estimate.reading(now_s=link.now_s)
    assert here.up_bps == pytest.approx(link.up_bps, rel=0.1)
    assert here.rtt_ms < 1.3 * link.rtt_ms


def test_what_was_sent_a_round_trip_before_an_answer_came_has_left() -> None:
    link = learnt(rtt_ms=150.0, up_bps=1.5e6)  # 12 kB take 64 ms
    first, start_s = link.begin(12_000), link.now_s
    link.now_s += 0.07
    link.begin(24_000)
    link.estimate.finish(first, now_s=start_s + 0.214)
    assert link.estimate.reading(now_s=start_s + 0.214).waiting_bytes < 1_000
    assert link.estimate.unproven == 1


def test_what_stood_before_the_cloud_has_left_as_well() -> None:
    link = learnt(rtt_ms=50.0, up_bps=2e6)
    first, start_s = link.begin(12_000), link.now_s
    link.begin(60_000)  # they take 240 ms
    link.now_s += link.takes_ms(12_000) / 1e3 + 0.5
    link.estimate.finish(first, now_s=link.now_s, cloud_ms=500.0)
    assert link.now_s - start_s == pytest.approx(0.598)
    assert link.estimate.reading(now_s=link.now_s).waiting_bytes == 0


def at_once(link: Link, *sizes: int, clouds_ms: tuple[float, ...], answered: set[int]) -> None:
    """Sent at once, taken by the cloud for so long each; of some an answer comes, some are left."""
    start_s, sent_bytes = link.now_s, 0
    begun = [link.begin(size) for size in sizes]
    for place, (exchange, size) in enumerate(zip(begun, sizes, strict=True)):
        sent_bytes += size
        cloud_ms = clouds_ms[place % len(clouds_ms)]
        link.now_s = start_s + (link.takes_ms(sent_bytes) + cloud_ms) / 1e3
        if place in answered:
            link.estimate.finish(exchange, now_s=link.now_s, cloud_ms=cloud_ms)
        else:
            link.estimate.abandon(exchange, now_s=start_s + 1e-3)


def test_how_long_the_cloud_took_is_no_part_of_what_lies_between_two_answers() -> None:
    link = learnt(rtt_ms=100.0, up_bps=2e6)
    for _ in range(4):
        at_once(link, *[12_000] * 6, clouds_ms=(10.0, 50.0), answered=set(range(6)))
        link.now_s += 1.0
    assert link.estimate.reading(now_s=link.now_s).up_bps == pytest.approx(2e6, rel=0.05)


def test_what_was_given_up_between_two_answers_had_to_pass_between_them() -> None:
    link = learnt(rtt_ms=100.0, up_bps=2e6)
    for _ in range(4):
        at_once(link, *[12_000] * 5, clouds_ms=(0.0,), answered={0, 2, 4})
        link.now_s += 1.0
    assert link.estimate.reading(now_s=link.now_s).up_bps == pytest.approx(2e6, rel=0.05)


def test_answers_that_lie_much_further_apart_mean_that_the_link_has_changed() -> None:
    link = learnt(rtt_ms=100.0, up_bps=10e6)
    before = link.estimate.transfer(now_s=link.now_s)
    link.up_bps = 0.2e6
    at_once(link, *[12_000] * 2, clouds_ms=(0.0,), answered={0, 1})
    here = link.estimate.transfer(now_s=link.now_s)
    assert here.rtt_var > 5 * before.rtt_var  # what was known of the round trip is doubted too
    assert link.estimate.unsure  # it is off by more than even that explains
    at_once(link, *[12_000] * 6, clouds_ms=(0.0,), answered=set(range(6)))
    assert link.estimate.reading(now_s=link.now_s).up_bps == pytest.approx(0.2e6, rel=0.2)

"""What the estimate of the link promises, whatever crosses it."""

import itertools
import math

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hybridge.edge.link import LinkEstimate
from hybridge.edge.transfer import NO_LINK

from .ideal_link import HUGE, MIXED_BYTES, Link, learnt

links = st.tuples(st.floats(5, 500), st.floats(2e5, 5e7))
quick_links = st.tuples(st.floats(5, 500), st.floats(2e6, 5e7))
"""Exchanges take so little that next to nothing is forgotten between them."""
sizes = st.integers(0, HUGE)


def check_sound(estimate: LinkEstimate, *, now_s: float) -> None:
    """No reading is NaN or below nothing, forecasts grow with bytes, ranges hold their points."""
    transfer = estimate.transfer(now_s=now_s)
    asked = (0, 100, 24_000, HUGE)
    durations = [transfer.duration(each) for each in asked]
    for each, duration in zip(asked, durations, strict=True):
        assert 0.0 <= (1 - 1e-9) * transfer.least_ms(each) <= duration.mean_ms
        assert duration.variance >= 0.0
        assert 0.0 <= duration.within(500.0) <= 1.0
    # An outage adds a spread that is the smaller, relatively, the longer the whole takes.
    slack = 0.05 if transfer.stall_ms else 1e-9
    for less, more in itertools.pairwise(each.quantile(0.0) for each in durations):
        assert less * (1 - slack) <= more
    spread = transfer.forecast(10_000, 20_000)
    assert spread.mean_ms == transfer.duration(10_000).mean_ms
    assert spread.variance >= transfer.duration(10_000).variance
    reading = estimate.reading(now_s=now_s)
    assert 0.0 <= reading.rtt_low_ms <= reading.rtt_ms <= reading.rtt_high_ms
    assert 0.0 <= reading.up_low_bps <= reading.up_bps <= reading.up_high_bps
    assert reading.waiting_bytes >= 0
    assert reading.stalled_ms >= 0.0
    assert reading.idle_s >= 0.0
    if reading.exchanges:
        assert reading.up_high_bps < math.inf
        assert all(each.mean_ms < math.inf for each in durations)


def test_nothing_is_known_of_a_new_link() -> None:
    estimate = LinkEstimate()
    assert estimate.transfer(now_s=0.0) is NO_LINK
    assert NO_LINK.duration(0).mean_ms == NO_LINK.forecast(5, 9).mean_ms == math.inf
    assert estimate.reading(now_s=5.0).exchanges == 0
    estimate.begin(1000, now_s=5.0)
    assert estimate.transfer(now_s=5.0) is NO_LINK
    check_sound(estimate, now_s=6.0)


@given(links)
def test_a_steady_link_is_learnt(of: tuple[float, float]) -> None:
    rtt_ms, up_bps = of
    link = learnt(2, rtt_ms=rtt_ms, up_bps=up_bps)
    for up_bytes in MIXED_BYTES:
        assert link.median_ms(up_bytes) == pytest.approx(link.takes_ms(up_bytes), rel=0.25, abs=20)
    link.exchange(*MIXED_BYTES * 6)
    for up_bytes in MIXED_BYTES:
        assert link.median_ms(up_bytes) == pytest.approx(link.takes_ms(up_bytes), rel=0.15)
    reading = link.estimate.reading(now_s=link.now_s)
    share = 1.0 - rtt_ms / link.takes_ms(max(MIXED_BYTES))  # what the bytes are to the whole
    assert reading.rtt_ms == pytest.approx(rtt_ms, rel=0.2, abs=3)
    if share > 0.3:
        assert reading.up_bps == pytest.approx(up_bps, rel=0.25)
        assert reading.up_low_bps <= up_bps * 1.1
        assert reading.up_high_bps >= up_bps / 1.1
    assert reading.exchanges == 8 * len(MIXED_BYTES)


def test_the_surer_it_is_the_narrower_the_forecast() -> None:
    few, many = learnt(1), learnt(10)
    assert (
        many.estimate.transfer(now_s=many.now_s).duration(24_000).variance
        < few.estimate.transfer(now_s=few.now_s).duration(24_000).variance
    )


events = st.lists(
    st.tuples(
        st.sampled_from(["begin", "finish", "again", "give up", "broken", "look"]),
        st.floats(-5_000, 5_000) | st.floats(0, 1),  # the clock goes on, or jumps
        sizes,
        st.integers(0, 30),
        st.just(0.0) | st.floats(allow_nan=False),  # the cloud's own share, by its account
    ),
    max_size=40,
)


@given(events)
def test_no_history_makes_nonsense(history: list[tuple[str, float, int, int, float]]) -> None:
    """Jumping clocks, answers twice and out of order, breaks, a cloud that lies."""
    estimate, now_s = LinkEstimate(), 1_000.0
    open_, done = [], []
    for what, gap_s, size_bytes, which, cloud_ms in history:
        now_s += gap_s
        if what == "begin":
            expected_ms = min(max(cloud_ms, 0.0), 3.6e6)  # CloudTimes believes no more
            open_.append(estimate.begin(size_bytes, now_s=now_s, cloud_ms=expected_ms))
        elif what == "finish" and open_:
            exchange = open_.pop(which % len(open_))
            estimate.finish(exchange, now_s=now_s, down_bytes=size_bytes, cloud_ms=cloud_ms)
            done.append(exchange)
        elif what == "again" and done:
            estimate.finish(done[which % len(done)], now_s=now_s, cloud_ms=cloud_ms)
        elif what == "give up" and open_:
            exchange = open_.pop(which % len(open_))
            expected_ms = min(max(cloud_ms, 0.0), 3.6e6)
            estimate.abandon(exchange, now_s=now_s, cloud_ms=expected_ms)
        elif what == "broken":
            estimate.broken()
        check_sound(estimate, now_s=now_s)
    check_sound(estimate, now_s=now_s + 1e6)


@given(links, st.floats(0.5, 50), st.floats(0.5, 50))
def test_knowledge_grows_old(of: tuple[float, float], idle_s: float, more_s: float) -> None:
    link = learnt(3, rtt_ms=of[0], up_bps=of[1])

    def spread(after_s: float) -> float:
        duration = link.estimate.transfer(now_s=link.now_s + after_s).duration(24_000)
        return math.sqrt(duration.variance) / duration.mean_ms

    assert spread(0.0) < spread(idle_s) <= spread(idle_s + more_s)
    later = link.estimate.transfer(now_s=link.now_s + idle_s).duration(24_000)
    low, high = later.quantile(-1.2816), later.quantile(1.2816)
    assert low < link.takes_ms(24_000) < high


@given(quick_links, st.floats(12, 60), st.booleans())
def test_one_odd_exchange_moves_little_and_five_the_same_way_much(
    of: tuple[float, float], factor: float, slower: bool
) -> None:
    link = learnt(rtt_ms=of[0], up_bps=of[1])
    stretched = factor if slower else 1 / factor
    before_ms = link.median_ms(24_000)
    moved = []
    for _ in range(5):
        link.exchange(24_000, stretched=stretched)
        moved.append(math.log(link.median_ms(24_000) / before_ms))
    one, five = abs(moved[0]), abs(moved[-1])
    whole = math.log(factor)
    assert one < 0.7 * whole
    assert five > max(one, 0.3 * whole)
    assert (moved[-1] > 0.0) == slower


@given(quick_links, st.floats(12, 60))
def test_an_odd_exchange_each_way_is_no_other_link(of: tuple[float, float], factor: float) -> None:
    link = learnt(rtt_ms=of[0], up_bps=of[1])
    before_ms = link.median_ms(24_000)
    link.exchange(24_000, stretched=factor)
    link.exchange(24_000, stretched=1 / factor)
    assert abs(math.log(link.median_ms(24_000) / before_ms)) < 0.5 * math.log(factor)


@given(links, st.floats(0.05, 20), st.floats(0.05, 20))
def test_the_longer_an_outage_lasts_the_longer_it_is_thought_to_last(
    of: tuple[float, float], first_s: float, more_s: float
) -> None:
    link = learnt(rtt_ms=of[0], up_bps=of[1])
    usual_ms = link.mean_ms(3_000)
    due_s = link.begin(24_000).due_s - link.now_s
    early, late = due_s + first_s, due_s + first_s + more_s
    assert link.estimate.stall_ms(now_s=link.now_s + early) == pytest.approx(first_s * 1e3)
    assert usual_ms + first_s * 1e3 < link.mean_ms(3_000, after_s=early)
    assert link.mean_ms(3_000, after_s=early) < link.mean_ms(3_000, after_s=late)


def test_bytes_given_up_are_still_under_way_until_a_later_answer_proves_otherwise() -> None:
    link = learnt()
    reading = link.estimate.reading(now_s=link.now_s)
    assert (reading.waiting_bytes, reading.stalled_ms, link.estimate.unproven) == (0, 0.0, 0)
    usual_ms = link.mean_ms(400)
    lost = [link.begin(60_000) for _ in range(5)]  # nobody waits for them any more
    link.now_s += 10.0
    assert link.estimate.unproven == len(lost)
    reading = link.estimate.reading(now_s=link.now_s)
    assert reading.waiting_bytes == pytest.approx(300_000, rel=0.02)
    assert reading.stalled_ms > 5_000
    assert link.mean_ms(400) > usual_ms + 5_000
    probe = link.begin(400)
    link.now_s += 1.0
    link.estimate.finish(probe, now_s=link.now_s)
    assert link.estimate.unproven == 0
    assert link.estimate.stall_ms(now_s=link.now_s) == 0.0
    assert link.estimate.reading(now_s=link.now_s).waiting_bytes == 0
    assert link.mean_ms(400) < 3 * usual_ms  # how long the outage was teaches next to nothing


def test_an_answer_proves_nothing_about_what_was_sent_after_it() -> None:
    link = learnt()
    first, second = link.begin(24_000), link.begin(24_000)
    link.now_s += link.takes_ms(24_000) / 1e3
    link.estimate.finish(first, now_s=link.now_s)
    assert link.estimate.unproven == 1
    link.estimate.finish(second, now_s=link.now_s + 0.02)
    assert link.estimate.unproven == 0


def test_a_broken_connection_takes_what_was_under_way_with_it() -> None:
    link = learnt()
    for _ in range(4):
        link.begin(60_000)
    link.now_s += 10.0
    link.estimate.broken()
    assert link.estimate.unproven == 0
    assert link.estimate.reading(now_s=link.now_s).waiting_bytes == 0
    assert link.estimate.stall_ms(now_s=link.now_s) == 0.0
    assert link.estimate.transfer(now_s=link.now_s) is not NO_LINK


def pairs(link: Link, *, together: bool) -> None:
    """Twelve times two exchanges on an ideal link, at once or one after the other."""
    for _ in range(12):
        sent = [link.begin(24_000), link.begin(24_000)] if together else [link.begin(24_000)]
        for place, exchange in enumerate(sent, start=1):
            took_s = (link.rtt_ms + place * (link.takes_ms(24_000) - link.rtt_ms)) / 1e3
            link.estimate.finish(exchange, now_s=link.now_s + took_s)
        link.now_s += took_s + 1.0
        if not together:
            link.exchange(24_000)


@given(links)
def test_exchanges_at_once_teach_what_they_teach_one_by_one(of: tuple[float, float]) -> None:
    rtt_ms, up_bps = of
    one_by_one, at_once = (learnt(4, rtt_ms=rtt_ms, up_bps=up_bps) for _ in range(2))
    pairs(one_by_one, together=False)
    pairs(at_once, together=True)
    for up_bytes in MIXED_BYTES:
        true_ms = one_by_one.takes_ms(up_bytes)
        for link in (one_by_one, at_once):
            assert link.median_ms(up_bytes) == pytest.approx(true_ms, rel=0.3)


@given(sizes, st.integers(1, 200_000))
def test_what_is_sent_now_waits_behind_what_was_sent_before(
    up_bytes: int, ahead_bytes: int
) -> None:
    link = learnt()
    alone = link.estimate.transfer(now_s=link.now_s)
    link.begin(ahead_bytes)
    behind = link.estimate.transfer(now_s=link.now_s)
    ahead_ms = alone.up_ms * ahead_bytes / 1e3
    assert behind.ahead_ms == pytest.approx(ahead_ms)
    without = msgspec.structs.replace(behind, ahead_ms=0.0)
    assert behind.duration(up_bytes).quantile(0.0) > without.duration(up_bytes).quantile(0.0)
    gone = link.estimate.transfer(now_s=link.now_s + ahead_ms / 1e3 + 1e-6)
    assert gone.ahead_ms == 0.0 or gone.stall_ms > 0.0


def test_sizes_grow_step_by_step_and_shrink_by_halves() -> None:
    link = Link()
    link.exchange(*[400] * 8)
    small = link.estimate.transfer(now_s=link.now_s)
    assert small.reach_kb == pytest.approx(1.0)
    link.exchange(*[24_000] * 8)
    grown = link.estimate.transfer(now_s=link.now_s)
    assert grown.reach_kb == pytest.approx(24.0, rel=0.05)
    at_200_kb = grown.up_ms * 200.0
    assert grown.duration(200_000).quantile(0.0) > grown.rtt_ms + 2.5 * at_200_kb
    first, second = link.begin(24_000), link.begin(24_000)
    for given_up in (first, second):  # one disappointment, not two
        link.estimate.abandon(given_up, now_s=link.now_s + 5.0)
    shrunk = link.estimate.transfer(now_s=link.now_s + 5.0)
    assert shrunk.reach_kb == pytest.approx(grown.reach_kb / 2, rel=0.05)


def test_the_clouds_own_share_is_no_part_of_the_link() -> None:
    honest, slow = Link(), Link()
    for cloud_ms, link in ((0.0, honest), (300.0, slow)):
        for up_bytes in MIXED_BYTES * 8:
            exchange = link.estimate.begin(up_bytes, now_s=link.now_s, cloud_ms=cloud_ms)
            took_s = (link.takes_ms(up_bytes) + cloud_ms) / 1e3
            link.estimate.finish(exchange, now_s=link.now_s + took_s, cloud_ms=cloud_ms)
            link.now_s += 2.0
    for up_bytes in MIXED_BYTES:
        assert slow.mean_ms(up_bytes) == pytest.approx(honest.mean_ms(up_bytes), rel=0.02)


@pytest.mark.parametrize("cloud_ms", [-1.0, -math.inf, math.inf, 1e9])
def test_a_cloud_that_claims_what_cannot_be_is_not_believed(cloud_ms: float) -> None:
    told, silent = learnt(), learnt()
    for link, claimed_ms in ((told, cloud_ms), (silent, 0.0)):
        exchange = link.begin(24_000)
        link.now_s += link.takes_ms(24_000) / 1e3
        link.estimate.finish(exchange, now_s=link.now_s, cloud_ms=claimed_ms)
    assert told.mean_ms(24_000) == silent.mean_ms(24_000)


def test_a_link_that_delivers_a_byte_a_second() -> None:
    link = learnt(rtt_ms=1_000.0, up_bps=8.0)
    for up_bytes in MIXED_BYTES:
        assert link.median_ms(up_bytes) >= link.takes_ms(up_bytes) / 2
        assert link.estimate.transfer(now_s=link.now_s).duration(up_bytes).within(2_000.0) < 1e-3


def test_an_exchange_of_no_bytes_is_proven_as_any_other() -> None:
    link = learnt()
    link.exchange(0, 0)
    assert link.estimate.unproven == 0


def test_many_exchanges_lost_in_one_outage_are_one_surprise() -> None:
    one, many = learnt(), learnt()
    for link, number in ((one, 1), (many, 8)):
        held = [link.begin(400) for _ in range(number)]
        link.now_s += 3.0
        for exchange in held:
            link.estimate.finish(exchange, now_s=link.now_s)
        link.now_s += 1.0
    usual_ms = one.takes_ms(400)
    assert one.mean_ms(400) < 3 * usual_ms
    assert many.mean_ms(400) == pytest.approx(one.mean_ms(400), rel=0.1)


@example((307.0, 1.306e6), 1.95)
@given(links, st.floats(1.5, 30))
def test_what_is_given_up_teaches_that_it_takes_longer(
    of: tuple[float, float], factor: float
) -> None:
    link = learnt(rtt_ms=of[0], up_bps=of[1])
    usual_ms = link.median_ms(24_000)
    exchange = link.begin(24_000)
    link.now_s += factor * link.takes_ms(24_000) / 1e3
    link.estimate.abandon(exchange, now_s=link.now_s)
    assert link.median_ms(24_000) > usual_ms
    assert link.estimate.unproven == 1  # its bytes are under way
    again = link.median_ms(24_000)
    link.estimate.abandon(exchange, now_s=link.now_s + 1.0)
    assert link.median_ms(24_000) == again  # one surprise, not two


@given(links, st.floats(0, 0.8))
def test_what_was_given_up_before_it_was_due_teaches_nothing(
    of: tuple[float, float], share: float
) -> None:
    link = learnt(rtt_ms=of[0], up_bps=of[1])
    before = link.estimate.reading(now_s=link.now_s)
    exchange = link.begin(24_000)
    given_up_s = link.now_s + share * link.takes_ms(24_000) / 1e3
    link.estimate.abandon(exchange, now_s=given_up_s)
    after = link.estimate.reading(now_s=link.now_s)
    assert (after.rtt_ms, after.up_bps) == (before.rtt_ms, before.up_bps)


@pytest.mark.parametrize("size", [100, 400])
def test_what_takes_longer_than_the_quickest_stood_in_a_queue(size: int) -> None:
    """So few bytes tell nothing of the upload: it would be the round trip."""
    link = learnt(rtt_ms=50.0, up_bps=20e6)
    ms = link.takes_ms(size)
    for _ in range(12):
        ms *= 1.2
        exchange = link.begin(size)
        link.estimate.finish(exchange, now_s=link.now_s + ms / 1e3)
        link.now_s += ms / 1e3 + 0.05
    assert link.estimate.reading(now_s=link.now_s).rtt_ms < 75.0


def test_a_longer_round_trip_is_learnt_once_the_quick_ones_are_long_ago() -> None:
    link = learnt(rtt_ms=50.0)
    link.rtt_ms = 200.0
    link.exchange(*MIXED_BYTES * 6)
    assert link.estimate.reading(now_s=link.now_s).rtt_ms == pytest.approx(200.0, rel=0.2)


# Exchanges that were answered from what had come.


@given(quick_links, st.integers(10_000, 60_000), st.floats(0.3, 0.9))
def test_a_part_teaches_what_its_bytes_took(
    link: tuple[float, float], up_bytes: int, share: float
) -> None:
    """Answered as soon as a share had come: the same link is learnt as from whole ones."""
    rtt_ms, up_bps = link
    there = learnt(rtt_ms=rtt_ms, up_bps=up_bps)
    before_ms = there.median_ms(up_bytes)
    for _ in range(4):
        exchange = there.begin(up_bytes)
        came = int(up_bytes * share)
        there.now_s += there.takes_ms(came) / 1e3
        there.estimate.finish(exchange, now_s=there.now_s, rest_bytes=up_bytes - came)
        probe = there.begin(400)  # behind what had not left when the answer did
        rest_ms = there.takes_ms(up_bytes - came) - there.rtt_ms
        waits_ms = max(rest_ms - there.rtt_ms, 0.0)
        there.now_s += (waits_ms + there.takes_ms(400)) / 1e3
        there.estimate.finish(probe, now_s=there.now_s)
        there.now_s += 1.0
    assert there.median_ms(up_bytes) == pytest.approx(before_ms, rel=0.3)
    assert there.estimate.unproven == 0


def test_the_rest_stays_under_way() -> None:
    link = learnt(up_bps=1e6)
    exchange = link.begin(50_000)
    link.now_s += link.takes_ms(10_000) / 1e3
    link.estimate.finish(exchange, now_s=link.now_s, rest_bytes=40_000)
    assert link.estimate.unproven == 1
    ahead_ms = link.estimate.transfer(now_s=link.now_s).ahead_ms
    assert ahead_ms == pytest.approx(40_000 * 8e3 / 1e6, rel=0.25)
    assert link.estimate.stall_ms(now_s=link.now_s) == 0.0  # nothing is overdue yet
    later_s = link.now_s + 60.0
    assert link.estimate.stall_ms(now_s=later_s) > 0.0
    probe = link.estimate.begin(100, now_s=later_s)
    link.estimate.finish(probe, now_s=later_s + 0.05)
    assert link.estimate.unproven == 0


@given(st.floats(100, 90_000), st.floats(0, 20_000), st.floats(0.9, 1.1))
def test_an_exchange_teaches_what_kalmans_matrices_say(up: float, down: float, off: float) -> None:
    estimate = learnt().estimate
    link_ms = [math.exp(each) for each in estimate._x]
    size = np.array([1.0, up / 1e3, down / 1e3])
    expected_ms = float(size @ link_ms)
    h = size * link_ms / expected_ms
    x, p = np.array(estimate._x), np.array(estimate._p)
    noise2 = (h[0] + h[2]) ** 2 * estimate._fixed_noise2 + h[1] ** 2 * estimate._up_noise2
    gain = p @ h / (h @ p @ h + noise2)
    estimate._most_rtt_ms = math.inf
    estimate._learn((1.0, up / 1e3, down / 1e3), off * expected_ms)
    assert estimate._x == pytest.approx(list(x + gain * math.log(off)), rel=1e-6, abs=1e-9)
    np.testing.assert_allclose(estimate._p, p - np.outer(gain, p @ h), rtol=1e-6, atol=1e-12)

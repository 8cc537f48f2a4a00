"""How long exchanges are taken to take, by their size."""

import itertools
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.rate import crowd_ms
from hybridge.edge.transfer import NO_LINK, Transfer

from .ideal_link import MIXED_BYTES, learnt


def test_a_size_is_judged_by_what_becomes_of_the_link_when_all_take_it() -> None:
    rare, often = learnt(), learnt()
    for _ in range(40):
        often.now_s += 0.1
        exchange = often.begin(0)
        often.estimate.finish(exchange, now_s=often.now_s + often.rtt_ms / 1e3)
    transfer = often.estimate.transfer(now_s=often.now_s)
    assert transfer.rate_hz == pytest.approx(10.0, rel=0.2)
    own_ms = transfer.up_ms * 100.0 * math.sqrt(100.0 / transfer.reach_kb)
    crowd = crowd_ms(own_ms, load=transfer.rate_hz * own_ms / 1e3, waited=transfer.waited)
    expected_ms = transfer.rtt_ms + transfer.ahead_ms + own_ms + crowd
    assert crowd > own_ms
    assert transfer.duration(100_000).quantile(0.0) == pytest.approx(expected_ms)
    assert often.mean_ms(100_000) > 1.3 * rare.mean_ms(100_000)
    assert often.mean_ms(400) < 1.3 * rare.mean_ms(400)


def asked(*sizes: int, pauses_s: list[float]) -> Transfer:
    """A link after exchanges of these sizes in turn, one after each pause."""
    link = learnt()
    for pause_s, up_bytes in zip(pauses_s, itertools.cycle(sizes), strict=False):
        link.now_s += pause_s
        began_s = link.now_s
        link.exchange(up_bytes)
        link.now_s = began_s  # by the clock of whoever asks, not of the answers
    return link.estimate.transfer(now_s=link.now_s + 0.2)


def test_who_asks_by_the_clock_makes_a_shorter_queue() -> None:
    by_the_clock = asked(*MIXED_BYTES, pauses_s=[0.2] * 200)
    in_bursts = asked(*MIXED_BYTES, pauses_s=[0.1, 0.1, 0.1, 0.5] * 50)
    assert by_the_clock.waited < 0.2
    assert in_bursts.waited > 0.4
    one, other = (
        msgspec.structs.replace(by_the_clock, waited=each.waited, rate_hz=10.0)
        for each in (by_the_clock, in_bursts)
    )
    assert one.duration(60_000).quantile(0.0) < other.duration(60_000).quantile(0.0) - 5.0
    assert one.duration(0) == other.duration(0)


def test_a_rate_of_which_little_is_known_makes_a_longer_one() -> None:
    known = asked(*MIXED_BYTES, pauses_s=[0.2] * 200)
    unknown = asked(100, pauses_s=[0.2] * 200)
    assert unknown.up_var > 4 * known.up_var
    assert unknown.waited > known.waited + 0.2
    idle = learnt().estimate.transfer(now_s=1e4)
    assert idle.waited == 1.0


def test_the_least_is_what_a_link_that_is_known_takes() -> None:
    known = Transfer(10.0, 20.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 0.0, 1e6, 1.0)
    assert known.least_ms(3_000) == known.duration(3_000).mean_ms == 10.0 + 20.0 + 5.0 + 6.0
    assert NO_LINK.least_ms(3_000) == math.inf


@given(st.tuples(st.floats(5, 500), st.floats(2e5, 5e7)))
def test_what_is_kept_for_the_way_back_is_more_than_it_takes(link: tuple[float, float]) -> None:
    there = learnt(rtt_ms=link[0], up_bps=link[1])
    transfer = there.estimate.transfer(now_s=there.now_s)
    assert transfer.rtt_ms < transfer.way_back_ms < 10 * transfer.rtt_ms

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wan.link_model import (
    OPPORTUNITY_BYTES,
    Direction,
    DirectionSpec,
    Link,
    LinkSpec,
    OutageKind,
    Outages,
    Rate,
    Trace,
)

MBIT = DirectionSpec(bottleneck=Rate(bps=1.2e6), delay_ms=10.0)
"""1,500 bytes take 10 ms, and then 10 ms more."""
SECOND = Trace([0.1, 0.1, 0.4, 1.0])

times = st.lists(st.floats(0, 5, allow_nan=False), min_size=1, max_size=60).map(sorted)
sizes = st.integers(1, 4000)


@st.composite
def packets(draw: st.DrawFn) -> list[tuple[int, float]]:
    return [(draw(sizes), time_s) for time_s in draw(times)]


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    gaps_ms = draw(st.lists(st.integers(0, 400), min_size=1, max_size=30))
    times_ms = [sum(gaps_ms[: end + 1]) for end in range(len(gaps_ms))]
    return Trace([*(time_ms / 1e3 for time_ms in times_ms), times_ms[-1] / 1e3 + 0.001])


@st.composite
def outages(draw: st.DrawFn) -> Outages:
    edges = sorted(draw(st.lists(st.floats(0, 3), min_size=2, max_size=6, unique=True)))
    pairs = tuple(zip(edges[0::2], edges[1::2], strict=False))
    period_s = draw(st.sampled_from([math.inf, 3.5]))
    return Outages(pairs, period_s=period_s, kind=draw(st.sampled_from(list(OutageKind))))


@st.composite
def specs(draw: st.DrawFn) -> DirectionSpec:
    delay_ms = draw(st.floats(0, 100))
    rates = st.floats(1e4, 1e8).map(lambda bps: Rate(bps=bps))
    return DirectionSpec(
        bottleneck=draw(st.one_of(rates, traces())),
        delay_ms=delay_ms,
        jitter_ms=draw(st.floats(0, 1)) * delay_ms,
        loss=draw(st.sampled_from([0.0, 0.3])),
        queue_bytes=draw(st.sampled_from([0, 5_000, 10**9])),
        outages=draw(st.none() | outages()),
    )


def put_all(
    direction: Direction, packets: Sequence[tuple[int, float]]
) -> list[tuple[int, float, float | None]]:
    return [(size, now_s, direction.put(size, now_s)) for size, now_s in packets]


def test_a_packet_takes_its_time_in_the_bottleneck_and_then_the_delay() -> None:
    assert Direction(MBIT, seed=1).put(1500, 3.0) == pytest.approx(3.02)


def test_packets_wait_for_those_before_them() -> None:
    direction = Direction(MBIT, seed=1)
    arrivals = [direction.put(1500, 1.0) for _ in range(3)]
    assert arrivals == pytest.approx([1.02, 1.03, 1.04])


def test_what_waits_is_counted_until_it_has_passed_the_bottleneck() -> None:
    direction = Direction(MBIT, seed=1)
    direction.put(1500, 0.0)
    direction.put(3000, 0.0)
    assert [direction.waiting_bytes(now_s) for now_s in (0.0, 0.011, 0.031)] == [4500, 3000, 0]


def test_a_full_queue_drops_what_comes_next() -> None:
    direction = Direction(replace(MBIT, queue_bytes=3000), seed=1)
    arrivals = [direction.put(1500, 0.0) for _ in range(3)]
    assert arrivals[2] is None
    assert direction.counts.queue_full == 1
    assert direction.put(1500, 0.011) == pytest.approx(0.04)


def test_a_packet_larger_than_the_queue_passes_when_it_is_empty() -> None:
    assert Direction(replace(MBIT, queue_bytes=0), seed=1).put(1500, 0.0) is not None


def test_loss_is_as_large_as_asked_and_the_same_for_the_same_seed() -> None:
    def lost(seed: int) -> list[bool]:
        direction = Direction(replace(MBIT, loss=0.2), seed=seed)
        return [direction.put(100, float(second)) is None for second in range(2000)]

    assert sum(lost(1)) == pytest.approx(400, abs=80)
    assert lost(1) == lost(1) != lost(2)


@pytest.mark.parametrize(
    ("sent_s", "arrives_s"),
    [(0.0, 0.11), (0.1, 0.11), (0.2, 0.41), (0.95, 1.01), (1.05, 1.11), (7.3, 7.41)],
)
def test_a_packet_takes_the_next_opportunity_of_a_trace(sent_s: float, arrives_s: float) -> None:
    direction = Direction(DirectionSpec(SECOND, delay_ms=10.0), seed=1)
    assert direction.put(1500, sent_s) == pytest.approx(arrives_s)


def test_small_packets_share_an_opportunity_and_large_ones_take_several() -> None:
    direction = Direction(DirectionSpec(SECOND, delay_ms=0.0), seed=1)
    arrivals = [direction.put(size, 0.0) for size in (700, 700, 700, 3800, 1)]
    # 700 + 700 + 100 | 600 + 900 | 1500 | 1400 + 1: the last opportunity of the turn is the fourth
    assert arrivals == pytest.approx([0.1, 0.1, 0.1, 1.0, 1.0])


def test_the_rest_of_an_opportunity_that_has_passed_is_gone() -> None:
    direction = Direction(DirectionSpec(SECOND, delay_ms=0.0), seed=1)
    direction.put(100, 0.3)
    assert direction.put(1500, 0.41) == pytest.approx(1.0)


def test_an_offset_is_where_in_the_trace_the_link_starts() -> None:
    spec = DirectionSpec(SECOND, delay_ms=0.0)
    direction = Direction(spec, seed=1, start_s=100.0, offset_s=0.3)
    assert direction.put(1500, 100.0) == pytest.approx(100.1)
    assert direction.put(1500, 100.2) == pytest.approx(100.7)


def test_an_outage_that_drops_loses_what_enters_and_what_would_leave() -> None:
    spec = replace(MBIT, outages=Outages(((1.0, 2.0),), period_s=5.0))
    direction = Direction(spec, seed=1)
    arrivals = [direction.put(1500, now_s) for now_s in (0.5, 0.995, 1.5, 2.0, 6.5, 7.0)]
    assert [arrival is None for arrival in arrivals] == [False, True, True, False, True, False]
    assert direction.counts.in_outage == 3


def test_an_outage_that_holds_only_delays() -> None:
    spec = replace(MBIT, outages=Outages(((1.0, 2.0),), period_s=5.0, kind=OutageKind.HOLD))
    direction = Direction(spec, seed=1)
    arrivals = [direction.put(1500, now_s) for now_s in (0.5, 0.995, 1.5, 6.5)]
    assert arrivals == pytest.approx([0.52, 2.015, 2.025, 7.02])


@given(outages(), st.floats(0, 20))
def test_up_time_turns_around(outages: Outages, time_s: float) -> None:
    up_s = outages.up_s(time_s)
    assert outages.up_s(outages.when_up_s(up_s)) == pytest.approx(up_s, abs=1e-9)
    # A little less up time was there a little earlier; at an outage's edge a rounding decides.
    assert outages.when_up_s(max(0.0, up_s - 1e-9)) <= time_s + 1e-9


@given(specs(), packets())
def test_packets_arrive_in_order_after_their_delay(
    spec: DirectionSpec, packets: list[tuple[int, float]]
) -> None:
    through = [
        (now_s, arrival_s)
        for _, now_s, arrival_s in put_all(Direction(spec, seed=1), packets)
        if arrival_s is not None
    ]
    arrivals = [arrival_s for _, arrival_s in through]
    assert arrivals == sorted(arrivals)
    least_s = (spec.delay_ms - spec.jitter_ms) / 1e3
    assert all(arrival_s >= now_s + least_s - 1e-9 for now_s, arrival_s in through)


@given(specs(), packets())
def test_every_packet_is_accounted_for(
    spec: DirectionSpec, packets: list[tuple[int, float]]
) -> None:
    direction = Direction(spec, seed=1)
    outcomes = put_all(direction, packets)
    counts = direction.counts
    arrived = [size for size, _, arrival_s in outcomes if arrival_s is not None]
    assert (counts.delivered, counts.delivered_bytes) == (len(arrived), sum(arrived))
    assert counts.put == counts.delivered + counts.queue_full + counts.lost + counts.in_outage
    assert counts.put_bytes == sum(size for size, _ in packets)


@given(st.floats(1e5, 1e8), packets())
def test_a_rate_is_never_exceeded(bps: float, packets: list[tuple[int, float]]) -> None:
    spec = DirectionSpec(Rate(bps=bps), delay_ms=5.0, queue_bytes=10**9)
    through = put_all(Direction(spec, seed=1), packets)
    for first in range(len(through)):
        for last in range(first, len(through)):
            start_s, end_s = through[first][2], through[last][2]
            assert start_s is not None
            assert end_s is not None
            passed = sum(size for size, _, _ in through[first + 1 : last + 1])
            assert passed * 8 <= bps * (end_s - start_s) + 1e-3 * bps / 1e3 + 1


@given(traces(), packets(), st.floats(0, 3))
def test_no_opportunity_of_a_trace_is_used_twice(
    trace: Trace, packets: list[tuple[int, float]], offset_s: float
) -> None:
    spec = DirectionSpec(trace, delay_ms=0.0, queue_bytes=10**9)
    direction = Direction(spec, seed=1, offset_s=offset_s)
    through = put_all(direction, packets)
    first_s = through[0][1]
    for end_s in {arrival_s for _, _, arrival_s in through}:
        assert end_s is not None
        passed = sum(size for size, _, at_s in through if at_s is not None and at_s <= end_s)
        # Whatever came through by then came with the opportunities since the first packet.
        offered = trace.first_from(end_s + offset_s + 1e-6) - trace.first_from(
            first_s + offset_s - 1e-9
        )
        assert passed <= offered * OPPORTUNITY_BYTES


@given(traces(), st.floats(0, 50))
def test_the_first_opportunity_is_found(trace: Trace, time_s: float) -> None:
    number = trace.first_from(time_s)
    assert trace.time_s(number) >= time_s
    assert number == 0 or trace.time_s(number - 1) < time_s


def test_each_way_of_a_link_has_random_numbers_of_its_own() -> None:
    lossy = replace(MBIT, loss=0.5)
    link = Link(LinkSpec("lossy", up=lossy, down=lossy), seed=1)
    up, down = (
        [way.put(1, float(second)) is None for second in range(64)] for way in (link.up, link.down)
    )
    assert up != down


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Rate(bps=0),
        lambda: Trace([]),
        lambda: Trace([0.0]),
        lambda: Trace([0.2, 0.1, 0.3]),
        lambda: Outages(((1.0, 0.5),)),
        lambda: Outages(((0.0, 5.0),), period_s=5.0),
        lambda: Outages(((0.0, 5.0),), period_s=4.0),
        lambda: replace(MBIT, jitter_ms=11.0),
        lambda: replace(MBIT, loss=1.0),
        lambda: replace(MBIT, queue_bytes=-1),
        lambda: Direction(MBIT, seed=1, offset_s=-1.0),
        lambda: Direction(MBIT, seed=1).put(0, 0.0),
        lambda: Direction(MBIT, seed=1, start_s=2.0).put(1, 1.0),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match=r"\w"):
        wrong()

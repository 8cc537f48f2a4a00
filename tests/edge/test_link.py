"""What the estimate of the link promises, whatever crosses it."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.link import LinkEstimate

SMALL_BYTES, LARGE_BYTES = 0, 24_000
CAREFUL = 1.7
"""By how much a forecast may exceed the truth of a steady link: 1.5 at first, and what of the
throughput is lost in the round trip."""


@dataclass
class Link:
    """An ideal link with a clock that goes on by a second per exchange."""

    estimate: LinkEstimate
    rtt_ms: float = 50.0
    throughput_bps: float = 10e6
    now_s: float = 100.0

    def takes_ms(self, size_bytes: int) -> float:
        return self.rtt_ms + size_bytes * 8e3 / self.throughput_bps

    def exchange(self, *sizes_bytes: int, stretched: float = 1.0) -> None:
        for size_bytes in sizes_bytes:
            self.now_s += 1.0
            self.estimate.observe(
                size_bytes, self.takes_ms(size_bytes) * stretched, now_s=self.now_s
            )

    def time_out(self, size_bytes: int, ms: float) -> None:
        self.now_s += 1.0
        self.estimate.observe_timeout(size_bytes, ms, now_s=self.now_s)

    def forecast_ms(self, size_bytes: int) -> float:
        return self.estimate.forecast_ms(size_bytes, now_s=self.now_s)


links = st.builds(
    lambda rtt_ms, throughput_bps: Link(LinkEstimate(), rtt_ms, throughput_bps),
    st.floats(2, 500),
    st.floats(1e5, 1e9),
)
sizes = st.integers(0, 5_000_000)
exchanges = st.lists(st.tuples(sizes, st.floats(0.1, 20_000), st.booleans()), max_size=40)


def any_history(events: list[tuple[int, float, bool]]) -> Link:
    link = Link(LinkEstimate())
    for size_bytes, ms, answered in events:
        if answered:
            link.now_s += 1.0
            link.estimate.observe(size_bytes, ms, now_s=link.now_s)
        else:
            link.time_out(size_bytes, ms)
    return link


def test_nothing_is_known_of_a_new_link() -> None:
    estimate = LinkEstimate()
    assert not estimate.known
    assert estimate.forecast_ms(0, now_s=0.0) == math.inf
    assert estimate.reading().exchanges == 0


@given(exchanges, st.lists(sizes, min_size=2, max_size=9))
def test_a_forecast_never_falls_below_the_model_and_grows_with_the_bytes(
    events: list[tuple[int, float, bool]], asked: list[int]
) -> None:
    link = any_history(events)
    reading = link.estimate.reading()
    forecasts = [link.forecast_ms(size) for size in sorted(asked)]
    assert forecasts == sorted(forecasts)
    for size, forecast_ms in zip(sorted(asked), forecasts, strict=True):
        if link.estimate.known:
            modelled_ms = reading.rtt_ms + size * 8e3 / reading.throughput_bps
            assert forecast_ms >= modelled_ms > 0
        else:
            assert forecast_ms == math.inf


@given(exchanges, sizes, st.floats(0, 100), st.floats(0, 100))
def test_knowledge_grows_old(
    events: list[tuple[int, float, bool]], size_bytes: int, idle_s: float, more_s: float
) -> None:
    link = any_history(events)
    early = link.estimate.forecast_ms(size_bytes, now_s=link.now_s + idle_s)
    late = link.estimate.forecast_ms(size_bytes, now_s=link.now_s + idle_s + more_s)
    assert link.forecast_ms(size_bytes) <= early <= late


@given(links, sizes)
def test_a_steady_link_is_learnt_exactly(link: Link, size_bytes: int) -> None:
    for _ in range(12):
        link.exchange(SMALL_BYTES, LARGE_BYTES)
    reading = link.estimate.reading()
    assert math.isclose(reading.rtt_ms, link.rtt_ms, rel_tol=1e-6)
    if LARGE_BYTES * 8e3 / link.throughput_bps > 0.2 * link.rtt_ms:  # else lost in the round trip
        assert math.isclose(reading.throughput_bps, link.throughput_bps, rel_tol=1e-6)
        takes_ms = link.takes_ms(size_bytes)
        assert takes_ms <= link.forecast_ms(size_bytes) * (1 + 1e-9) <= CAREFUL * takes_ms


@given(links)
def test_the_first_two_probes_are_no_surprise(link: Link) -> None:
    """The first large exchange is judged by nothing: the model did not know throughput yet."""
    link.exchange(SMALL_BYTES, LARGE_BYTES)
    assert link.forecast_ms(LARGE_BYTES) <= CAREFUL * link.takes_ms(LARGE_BYTES)


@given(links, st.floats(2.5, 100), st.booleans(), st.integers(3, 12))
def test_two_surprises_in_a_row_mean_another_link(
    link: Link, factor: float, slower: bool, pairs: int
) -> None:
    link.exchange(*[SMALL_BYTES, LARGE_BYTES] * pairs)
    change = factor if slower else 1 / factor
    link.rtt_ms, link.throughput_bps = link.rtt_ms * change, link.throughput_bps / change
    link.exchange(SMALL_BYTES, LARGE_BYTES)
    reading = link.estimate.reading()
    assert reading.exchanges == 2
    assert math.isclose(reading.rtt_ms, link.rtt_ms, rel_tol=1e-6)
    assert link.forecast_ms(LARGE_BYTES) >= link.takes_ms(LARGE_BYTES) * (1 - 1e-9)
    assert link.forecast_ms(LARGE_BYTES) <= CAREFUL * link.takes_ms(LARGE_BYTES)


@given(links, st.floats(2.5, 100))
def test_a_slower_uplink_at_the_same_round_trip_is_another_link(link: Link, factor: float) -> None:
    """Probes alternate: the small ones, which see no change, must not hide the large ones'."""
    link.exchange(*[SMALL_BYTES, LARGE_BYTES] * 6)
    link.throughput_bps = LARGE_BYTES * 8e3 / (link.takes_ms(LARGE_BYTES) * factor)
    link.exchange(*[SMALL_BYTES, LARGE_BYTES] * 2)
    assert link.estimate.reading().exchanges <= 3
    assert link.forecast_ms(LARGE_BYTES) >= link.takes_ms(LARGE_BYTES) * (1 - 1e-9)


@given(links, st.floats(2.5, 100))
def test_one_odd_exchange_is_not_another_link(link: Link, factor: float) -> None:
    link.exchange(*[SMALL_BYTES, LARGE_BYTES] * 6)
    before = link.estimate.reading()
    link.exchange(LARGE_BYTES, stretched=factor)
    link.exchange(SMALL_BYTES)
    after = link.estimate.reading()
    assert after.exchanges == before.exchanges + 2
    assert math.isclose(after.rtt_ms, before.rtt_ms)
    assert math.isclose(after.throughput_bps, before.throughput_bps)


@given(links, st.integers(0, 100_000), st.floats(2.1, 1000), st.integers(1, 12))
def test_two_timeouts_teach_that_it_takes_at_least_so_long(
    link: Link, size_bytes: int, factor: float, pairs: int
) -> None:
    link.exchange(*[SMALL_BYTES, LARGE_BYTES] * pairs)
    gave_up_ms = factor * max(link.takes_ms(size_bytes), link.forecast_ms(size_bytes))
    link.time_out(size_bytes, gave_up_ms)
    link.time_out(size_bytes, gave_up_ms)
    assert link.forecast_ms(size_bytes) >= gave_up_ms


@given(links, st.floats(0, 1))
def test_a_short_wait_teaches_nothing(link: Link, share: float) -> None:
    link.exchange(*[SMALL_BYTES, LARGE_BYTES] * 3)
    before = link.estimate.reading(), link.estimate.forecast_ms(LARGE_BYTES, now_s=link.now_s)
    for _ in range(5):
        link.estimate.observe_timeout(
            LARGE_BYTES, share * link.takes_ms(LARGE_BYTES) * 0.99, now_s=link.now_s
        )
    after = link.estimate.reading(), link.estimate.forecast_ms(LARGE_BYTES, now_s=link.now_s)
    assert after == before


def test_a_first_timeout_is_better_than_nothing() -> None:
    link = Link(LinkEstimate())
    link.time_out(LARGE_BYTES, 300.0)
    assert link.estimate.known
    assert link.forecast_ms(LARGE_BYTES) >= 300.0


def test_what_is_old_is_forgotten() -> None:
    link = Link(LinkEstimate())
    link.exchange(*[SMALL_BYTES, LARGE_BYTES] * 5)
    link.now_s += 3600
    link.exchange(SMALL_BYTES)
    assert link.estimate.reading().exchanges == 1


@pytest.mark.parametrize("ms", [0.0, -1.0])
def test_an_exchange_in_no_time(ms: float) -> None:
    """The cloud's own share is taken out of a measurement, and may be all of it."""
    estimate = LinkEstimate()
    for _ in range(3):
        estimate.observe(LARGE_BYTES, ms, now_s=1.0)
        estimate.observe(SMALL_BYTES, ms, now_s=1.0)
    assert 0 < estimate.forecast_ms(LARGE_BYTES, now_s=1.0) < 1

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.duration import NEVER, NO_TIME, Duration

means = st.floats(0, 1e7)
durations = st.builds(Duration, means, st.just(0.0) | st.floats(0, 1e12))
instants = st.floats(-100, 1e8)
deviations = st.floats(-4, 4)


@given(durations, instants, st.floats(0, 1e7))
def test_a_probability_grows_with_the_time_there_is(
    duration: Duration, ms: float, more_ms: float
) -> None:
    before, after = duration.within(ms), duration.within(ms + more_ms)
    assert 0.0 <= before <= after <= 1.0


@given(durations, deviations, st.floats(0, 4))
def test_a_quantile_grows_with_how_sure_one_wants_to_be(
    duration: Duration, z: float, more: float
) -> None:
    before, after = duration.quantile(z), duration.quantile(z + more)
    assert 0.0 <= before <= after * (1 + 1e-12) < math.inf


@given(st.floats(0.1, 1e5), st.floats(0.01, 5), deviations)
def test_a_quantile_is_what_the_probability_says(mean_ms: float, spread: float, z: float) -> None:
    duration = Duration(mean_ms, (mean_ms * spread) ** 2)
    expected = 0.5 * math.erfc(-z * math.sqrt(0.5))
    assert duration.within(duration.quantile(z)) == pytest.approx(expected, abs=1e-6)


@given(means, instants)
def test_a_sure_time_is_one_or_the_other(mean_ms: float, ms: float) -> None:
    duration = Duration(mean_ms)
    assert duration.within(ms) == float(ms >= mean_ms)
    assert duration.quantile(3.0) == duration.quantile(-3.0) == mean_ms


@given(st.lists(durations, max_size=6))
def test_means_and_variances_add_up(durations: list[Duration]) -> None:
    whole = NO_TIME
    for each in durations:
        whole = whole.then(each)
    assert whole.mean_ms == pytest.approx(sum(each.mean_ms for each in durations))
    assert whole.variance == pytest.approx(sum(each.variance for each in durations))


@given(durations, instants, deviations)
def test_what_never_comes(duration: Duration, ms: float, z: float) -> None:
    for never in (NEVER, duration.then(NEVER), NEVER.then(duration)):
        assert never.within(ms) == never.within(math.inf) == 0.0
        assert never.quantile(z) == math.inf


@given(st.floats(0.1, 1e4), st.floats(0.05, 2))
def test_eight_of_ten_are_in_the_range(mean_ms: float, spread: float) -> None:
    duration = Duration(mean_ms, (mean_ms * spread) ** 2)
    low, high = duration.quantile(-1.2816), duration.quantile(1.2816)
    assert low < high
    assert duration.within(high) - duration.within(low) == pytest.approx(0.8, abs=1e-3)


def test_the_moments_of_samples() -> None:
    """20 and 40 ms at the median and 84 %: a lognormal whose mean and variance are known."""
    spread2 = math.log(2.0) ** 2
    mean_ms = 20.0 * math.exp(spread2 / 2)
    duration = Duration(mean_ms, mean_ms**2 * math.expm1(spread2))
    assert duration.quantile(0.0) == pytest.approx(20.0)
    assert duration.quantile(1.0) == pytest.approx(40.0)
    assert duration.within(20.0) == pytest.approx(0.5)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.devices.profile import StageTime
from hybridge.edge.duration import Duration
from hybridge.edge.stage_times import StageTimes

HEAD, ENCODE = "head:c01/int8", "encode:cloud:jpeg-90"
PROFILE = {
    "light": StageTime(p50_ms=8.0, p95_ms=10.0, p999_ms=30.0, runs=50),
    HEAD: StageTime(p50_ms=4.0, p95_ms=5.0, p999_ms=9.0, runs=50),
    ENCODE: StageTime(p50_ms=1.0, p95_ms=2.0, p999_ms=3.0, runs=50),
}
inf = float("inf")
times = st.lists(st.floats(0.001, 1000), max_size=200)


def seen(values: list[float], profile: dict[str, StageTime] | None = None) -> StageTimes:
    stage_times = StageTimes(PROFILE if profile is None else profile)
    for ms in values:
        stage_times.observe("light", ms)
    return stage_times


def samples(seed: int, *, slow: float, runs: int) -> list[float]:
    """Runs as a machine makes them that is `slow` times the profile's: its p95 a quarter above."""
    spread = np.random.default_rng(seed).lognormal(0, 0.14, runs)
    return [float(8.0 * slow * each) for each in spread]


def observed(stage_times: StageTimes, values: list[float]) -> float:
    for ms in values:
        stage_times.observe("light", ms)
    return stage_times.p95_ms("light")


def test_of_two_stages_no_more_than_one_is_off_by_much() -> None:
    stages = ("light", HEAD)
    fresh = StageTimes(PROFILE)
    assert fresh.usual_ms(stages) == 15.0
    assert fresh.late_ms(stages) == (30.0 - 10.0) + 15.0  # and they were never seen
    for _ in range(64):
        fresh.observe("light", 8.0)
        fresh.observe(HEAD, 4.0)
    late_ms = 30.0 - fresh.p95_ms("light")
    unseen = 8 / (64 + 8)
    assert fresh.late_ms(stages) == pytest.approx(late_ms + unseen * fresh.usual_ms(stages))


@given(times)
def test_what_nobody_measured_is_late_by_no_more(values: list[float]) -> None:
    stage_times = seen(values)
    assert stage_times.usual_ms(("light", "unknown")) == inf
    assert stage_times.late_ms(("light", "unknown")) == stage_times.late_ms(("light",)) >= 0.0


def test_nobody_plans_with_what_nobody_measured() -> None:
    assert StageTimes({}).p95_ms("light") == StageTimes({}).p999_ms("light") == inf
    assert StageTimes(PROFILE).p95_ms("other") == inf


@given(times)
def test_without_a_profile_enough_must_be_seen(values: list[float]) -> None:
    stage_times = seen(values, {})
    assert stage_times.p999_ms("light") == inf
    if len(values) < 8:
        assert stage_times.p95_ms("light") == inf
    else:
        assert min(values) <= stage_times.p95_ms("light") <= max(values)


def test_a_profile_holds_until_something_is_seen() -> None:
    stage_times = StageTimes(PROFILE)
    assert [stage_times.p95_ms(stage) for stage in PROFILE] == [10.0, 5.0, 2.0]
    assert [stage_times.p999_ms(stage) for stage in PROFILE] == [30.0, 9.0, 3.0]


@given(st.integers(0, 2**32 - 1), st.integers(0, 100))
def test_the_profile_fades_without_a_cliff(seed: int, runs: int) -> None:
    """On a machine that is as its profile says, no single run moves the forecast by a quarter."""
    stage_times = seen(samples(seed, slow=1.0, runs=runs))
    before_ms = stage_times.p95_ms("light")
    after_ms = observed(stage_times, [8.0])
    assert after_ms == pytest.approx(before_ms, rel=0.25)
    assert 8.0 <= after_ms <= 8.0 * 1.8


@pytest.mark.parametrize("before", [0, 5, 64, 200])
def test_a_step_up_is_in_the_forecast_after_twelve_runs(before: int) -> None:
    """Above 90 % of what comes, on average of many machines; one alone may be unlucky."""
    covered = []
    for seed in range(60):
        stage_times = seen(samples(seed, slow=1.0, runs=before))
        forecast_ms = observed(stage_times, samples(seed + 1000, slow=2.0, runs=12))
        coming = samples(seed + 2000, slow=2.0, runs=200)
        covered.append(np.mean([ms <= forecast_ms for ms in coming]))
    assert np.mean(covered) >= 0.9


@given(st.integers(0, 2**32 - 1), st.integers(0, 200))
def test_a_step_up_has_most_of_its_weight_after_five_runs(seed: int, before: int) -> None:
    stage_times = seen(samples(seed, slow=1.0, runs=before))
    assert observed(stage_times, [16.0] * 5) >= 16.0 * (0.99 if before == 0 else 0.8)


def test_after_a_step_down_the_forecast_comes_down() -> None:
    after_9_ms, after_20_ms = [], []
    for seed in range(60):
        slow = [*samples(seed, slow=1.0, runs=64), *samples(seed + 1000, slow=2.0, runs=64)]
        stage_times = seen(slow)
        assert stage_times.p95_ms("light") >= 16.0
        after_9_ms.append(observed(stage_times, samples(seed + 2000, slow=1.0, runs=9)))
        after_20_ms.append(observed(stage_times, samples(seed + 3000, slow=1.0, runs=11)))
    assert max(after_9_ms) < 16.0
    assert np.mean(after_9_ms) <= 8.0 * 1.4
    assert np.mean(after_20_ms) <= 8.0 * 1.35


def test_what_is_seen_outweighs_a_profile_that_was_wrong() -> None:
    wide = {"light": StageTime(p50_ms=8.0, p95_ms=80.0, p999_ms=99.0, runs=50)}
    forecasts_ms = [seen([8.0] * runs, wide).p95_ms("light") for runs in (0, 8, 64)]
    assert forecasts_ms == pytest.approx([80.0, 44.0, 16.0])


def test_one_slow_run_is_no_slow_machine() -> None:
    stage_times = seen([*[8.0] * 30, 80.0])
    assert stage_times.p95_ms("light") < 12.0
    assert stage_times.p999_ms("light") == 96.0


@given(times)
def test_the_net_is_at_least_as_careful_as_profile_and_past(values: list[float]) -> None:
    careful_ms = seen(values).p999_ms("light")
    assert careful_ms >= max(30.0, 1.2 * max(values[-64:], default=0.0))


def test_the_net_forgets_a_slow_spell_only_with_its_window() -> None:
    stage_times = seen([50.0] * 64)
    observed(stage_times, [8.0] * 63)
    assert stage_times.p999_ms("light") == 60.0
    observed(stage_times, [8.0])
    assert stage_times.p999_ms("light") == 30.0


def test_a_slow_machine_is_slow_in_stages_nobody_runs() -> None:
    stage_times = seen([24.0] * 9)
    assert stage_times.p95_ms(HEAD) == 15.0
    assert stage_times.p95_ms(ENCODE) == 6.0
    assert stage_times.p999_ms(HEAD) == 9.0 + 2 * 4.0
    observed(stage_times, [8.0] * 9)
    assert stage_times.p95_ms(HEAD) == 5.0


def test_a_stage_not_run_since_a_slow_spell_comes_down_with_the_others() -> None:
    stage_times = StageTimes(PROFILE)
    for _ in range(20):
        stage_times.observe("light", 24.0)
        stage_times.observe(HEAD, 12.0)
    assert stage_times.p95_ms(HEAD) >= 12.0
    observed(stage_times, [8.0] * 32)
    assert stage_times.p95_ms(HEAD) <= 5.0


def test_pictures_of_another_size_say_nothing_of_the_machine() -> None:
    stage_times = StageTimes(PROFILE)
    for _ in range(64):
        stage_times.observe(ENCODE, 50.0)
    assert stage_times.p95_ms("light") == 10.0
    assert stage_times.p95_ms(ENCODE) >= 50.0


def test_a_profiles_own_duration_is_the_lognormal_through_its_quantiles() -> None:
    duration = StageTimes(PROFILE).whole(("light",))
    assert duration.quantile(0.0) == pytest.approx(8.0)
    assert duration.quantile(1.6449) == pytest.approx(10.0)
    assert duration.mean_ms > 8.0


@pytest.mark.parametrize("p50_ms", [0.01, 1.0, 20.0])
def test_quantiles_far_apart_do_not_make_it_likely_to_be_quick(p50_ms: float) -> None:
    wild = {"light": StageTime(p50_ms=p50_ms, p95_ms=100.0, p999_ms=200.0, runs=50)}
    after_another = Duration(300.0, 100.0).then(StageTimes(wild).whole(("light",)))
    assert StageTimes(wild).whole(("light",)).within(100.0) == pytest.approx(0.95, abs=0.001)
    assert after_another.within(300.0) < 0.12  # what comes before takes as long alone


@given(times)
def test_a_duration_says_what_the_quantiles_say(values: list[float]) -> None:
    stage_times = seen(values)
    duration = stage_times.whole(("light",))
    assert duration == stage_times.whole(("light",))  # kept until the next run
    assert 0.0 < duration.mean_ms < inf
    assert 0.0 <= duration.variance < inf
    assert duration.quantile(1.6449) == pytest.approx(stage_times.p95_ms("light"), rel=1e-6)


def test_the_next_run_changes_the_duration() -> None:
    stage_times = StageTimes(PROFILE)
    before = stage_times.whole(("light",))
    observed(stage_times, [80.0] * 9)
    assert stage_times.whole(("light",)).mean_ms > 2 * before.mean_ms
    assert stage_times.whole((HEAD,)).mean_ms > 2 * 4.0  # and of stages on the same machine


def test_what_nobody_measured_never_ends() -> None:
    for stage_times in (StageTimes({}), StageTimes(PROFILE)):
        assert stage_times.whole(("other",)) == Duration(inf)
        assert stage_times.whole(("other",)).within(1e9) == 0.0


def test_runs_that_are_all_alike_are_sure() -> None:
    steady = {"light": StageTime(p50_ms=8.0, p95_ms=8.0, p999_ms=8.0, runs=50)}
    assert StageTimes(steady).whole(("light",)) == Duration(8.0)

from hypothesis import given
from hypothesis import strategies as st

from hybridge.devices.profile import StageTime
from hybridge.edge.stage_times import StageTimes

PROFILE = {"light": StageTime(p50_ms=8.0, p95_ms=10.0, p999_ms=30.0, runs=50)}
inf = float("inf")
times = st.lists(st.floats(0, 1000), max_size=200)


def seen(values: list[float], profile: dict[str, StageTime] | None = None) -> StageTimes:
    stage_times = StageTimes(PROFILE if profile is None else profile)
    for ms in values:
        stage_times.observe("light", ms)
    return stage_times


def test_nobody_plans_with_what_nobody_measured() -> None:
    assert StageTimes({}).p95_ms("light") == StageTimes({}).p999_ms("light") == inf
    assert StageTimes(PROFILE).p95_ms("head") == inf


@given(times)
def test_a_profile_holds_until_enough_was_seen(values: list[float]) -> None:
    stage_times = seen(values)
    if len(values) < 8:
        assert stage_times.p95_ms("light") == 10.0
        assert seen(values, {}).p95_ms("light") == inf
    else:
        window = values[-64:]
        assert stage_times.p95_ms("light") in window
        share = sum(ms <= stage_times.p95_ms("light") for ms in window) / len(window)
        assert share >= 0.95


@given(times)
def test_the_net_is_at_least_as_careful_as_profile_and_past(values: list[float]) -> None:
    careful_ms = seen(values).p999_ms("light")
    assert careful_ms >= max(30.0, *values[-64:], 0.0)
    assert seen(values, {}).p999_ms("light") == inf


def test_a_slow_spell_passes() -> None:
    stage_times = seen([500.0] * 64)
    assert stage_times.p95_ms("light") == 500.0
    for _ in range(64):
        stage_times.observe("light", 9.0)
    assert stage_times.p95_ms("light") == 9.0
    assert stage_times.p999_ms("light") == 30.0

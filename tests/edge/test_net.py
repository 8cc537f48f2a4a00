from hypothesis import given
from hypothesis import strategies as st

from hybridge.devices.models import LIGHT, RESIZE_LIGHT
from hybridge.devices.profile import StageTime
from hybridge.edge.lateness import Lateness
from hybridge.edge.net import SAFE, Net
from hybridge.edge.stage_times import StageTimes

USUAL_MS, CAREFUL_MS = 12.0, 50.0
PROFILE = {
    RESIZE_LIGHT: StageTime(p50_ms=1.0, p95_ms=2.0, p999_ms=10.0, runs=1000),
    LIGHT: StageTime(p50_ms=8.0, p95_ms=10.0, p999_ms=40.0, runs=1000),
}
LATE_MS = Lateness().reserve_ms


def net_after(*in_time: bool) -> Net:
    """One that has seen such answers, ten a second, until the instant 0."""
    net = Net(StageTimes(PROFILE), Lateness())
    for ago, each in zip(range(len(in_time) - 1, -1, -1), in_time, strict=True):
        net.saw(in_time=each, now_s=-ago / 10)
    return net


def early(net: Net, *, in_time: float = 1.0, now_s: float = 0.0) -> float:
    """How long the light model has, over what is always kept back, in ms."""
    return net.needs_ms(now_s=now_s, in_time=in_time) - LATE_MS


def test_without_an_answer_under_way_it_starts_with_time_for_one_run_in_a_thousand() -> None:
    assert early(net_after(), in_time=0.0) == early(net_after(), in_time=0.98)
    assert early(net_after(), in_time=0.0) == CAREFUL_MS + USUAL_MS
    assert early(net_after(), in_time=SAFE) == USUAL_MS


@given(st.floats(0, 1), st.floats(0, 1e4))
def test_whoever_is_before_it_is_waited_for(in_time: float, waits_ms: float) -> None:
    net = net_after()
    alone = net.needs_ms(now_s=0.0, in_time=in_time)
    assert (
        abs(net.needs_ms(now_s=0.0, in_time=in_time, waits_ms=waits_ms) - alone - waits_ms) < 1e-6
    )


def test_answers_that_failed_are_not_relied_on_for_a_while() -> None:
    assert early(net_after(False)) == USUAL_MS  # it may happen
    assert early(net_after(False, *[True] * 20, False)) == CAREFUL_MS + USUAL_MS
    assert early(net_after(False, False, *[True] * 60)) == USUAL_MS
    assert early(net_after(False, False), now_s=60.0) == USUAL_MS
    assert early(net_after(*[False] * 1000), now_s=1.0) == CAREFUL_MS + USUAL_MS


@given(st.lists(st.booleans(), min_size=200, max_size=300), st.floats(0, 100))
def test_a_cloud_that_fails_one_in_twenty_is_never_relied_on(
    in_time: list[bool], ago_s: float
) -> None:
    seen = [each and at % 20 != 0 for at, each in enumerate(in_time)]
    if not all(seen[-20:]) and ago_s < 1.0:
        assert early(net_after(*seen), now_s=ago_s) == CAREFUL_MS + USUAL_MS


def test_a_picture_is_large_beside_the_others() -> None:
    net = net_after()
    assert not any(net.is_large(size) for size in (500_000, 600_000, 900_000, 100_000))
    assert net.is_large(2_000_000)
    assert [net.is_large(2_000_000) for _ in range(60)][-1] is False  # by now all are

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.cloud_times import CloudTimes
from hybridge.edge.duration import NEVER, Duration
from hybridge.protos import fleet_pb2
from hybridge.shared.codec.picture import PictureFormat
from hybridge.shared.manifest import Precision

HOUR_MS = 3.6e6
anything_said = st.floats(allow_nan=True, allow_infinity=True)


def state(queue_ms: float, **compute_ms: float) -> fleet_pb2.ProbeResponse:
    """Tails whose times are sure."""
    tails = [
        fleet_pb2.TailState(contract=name, compute_p50_ms=ms, compute_p95_ms=ms)
        for name, ms in compute_ms.items()
    ]
    return fleet_pb2.ProbeResponse(queue_forecast_ms=queue_ms, tails=tails)


def mean_ms(times: CloudTimes, contract: str, *, now_s: float = 0.0) -> float:
    return times.forecast(contract, now_s=now_s).mean_ms


def test_what_the_cloud_says_of_itself() -> None:
    times = CloudTimes()
    assert times.forecast("a", now_s=0.0) == NEVER
    assert not times.known
    times.learn(state(5.0, a=10.0, b=30.0), now_s=0.0)
    assert times.known
    assert mean_ms(times, "a") == 15.0
    assert mean_ms(times, "never measured") == 35.0  # as the slowest known
    times.learn(state(0.0, c=1.0), now_s=0.0)
    assert mean_ms(times, "a") == 1.0
    times.learn(state(0.0), now_s=0.0)
    assert mean_ms(times, "c") == math.inf
    assert not times.known


def test_a_cloud_says_which_picture_formats_it_reads() -> None:
    times = CloudTimes()
    before = {PictureFormat.JPEG, PictureFormat.PNG, PictureFormat.WEBP, PictureFormat.AVIF}
    assert times.formats == before
    said = ["jpeg", "jxl", "one that comes later"]
    times.learn(fleet_pb2.ProbeResponse(picture_formats=said), now_s=0.0)
    assert times.formats == {PictureFormat.JPEG, PictureFormat.JXL}
    times.learn(fleet_pb2.ProbeResponse(), now_s=0.0)  # a cloud of an earlier release
    assert times.formats == before


def test_a_tail_whose_times_vary() -> None:
    tail = fleet_pb2.TailState(contract="a", compute_p50_ms=10.0, compute_p95_ms=20.0)
    times = CloudTimes()
    times.learn(fleet_pb2.ProbeResponse(tails=[tail]), now_s=0.0)
    spread_ms = 10.0 / 1.6449
    assert times.forecast("a", now_s=0.0) == Duration(10.0, pytest.approx(spread_ms**2))


@given(st.floats(0, 1e5), st.floats(0, 200), st.floats(0, 200))
def test_a_queue_is_served_while_one_looks_away(
    queue_ms: float, soon_s: float, later_s: float
) -> None:
    times = CloudTimes()
    times.learn(state(queue_ms, a=10.0), now_s=50.0)
    for after_s in (0.0, soon_s, soon_s + later_s):
        left_ms = max(queue_ms - after_s * 1e3, 0.0)
        forecast = times.forecast("a", now_s=50.0 + after_s)
        assert forecast.mean_ms == pytest.approx(10.0 + left_ms)
        assert forecast.variance == pytest.approx((0.3 * left_ms) ** 2)
    assert times.forecast("a", now_s=0.0) == times.forecast("a", now_s=50.0)  # a clock jumped


def test_answers_are_learnt_from() -> None:
    times = CloudTimes()
    times.observe("a", compute_ms=20.0, queue_ms=7.0, now_s=0.0)
    assert times.forecast("a", now_s=0.0).mean_ms == 27.0
    for _ in range(60):
        times.observe("a", compute_ms=40.0, queue_ms=0.0, now_s=0.0)
    forecast = times.forecast("a", now_s=0.0)
    assert forecast.mean_ms == pytest.approx(40.0, rel=0.01)
    assert math.sqrt(forecast.variance) < 4.0


def test_times_that_vary_make_an_unsure_forecast() -> None:
    times = CloudTimes()
    for run in range(200):
        times.observe("a", compute_ms=(10.0, 30.0)[run % 2], queue_ms=0.0, now_s=0.0)
    forecast = times.forecast("a", now_s=0.0)
    assert forecast.mean_ms == pytest.approx(20.0, rel=0.1)
    assert math.sqrt(forecast.variance) == pytest.approx(10.0, rel=0.2)


@given(st.lists(st.tuples(anything_said, anything_said, st.booleans()), max_size=30))
def test_a_cloud_that_lies_says_no_more_than_an_hour_and_no_less_than_nothing(
    said: list[tuple[float, float, bool]],
) -> None:
    times = CloudTimes()
    times.learn(state(0.0, b=5.0), now_s=0.0)
    for compute_ms, queue_ms, probe in said:
        if probe:
            times.learn(state(queue_ms, a=compute_ms, b=5.0), now_s=0.0)
        else:
            times.observe("a", compute_ms=compute_ms, queue_ms=queue_ms, now_s=0.0)
        forecast = times.forecast("a", now_s=0.0)
        assert 0.0 <= forecast.mean_ms <= 2 * HOUR_MS * (1 + 1e-9)
        assert 0.0 <= forecast.variance < math.inf
        assert 0.0 <= forecast.within(1_000.0) <= 1.0


def test_the_cloud_says_what_it_computes_in() -> None:
    times = CloudTimes()
    assert times.precision("a") is Precision.FLOAT32
    said = {"a": "int8", "b": "", "c": "of a later version"}
    tails = [fleet_pb2.TailState(contract=name, precision=text) for name, text in said.items()]
    times.learn(fleet_pb2.ProbeResponse(tails=tails), now_s=0.0)
    assert times.precision("a") is Precision.INT8
    assert times.precision("still being loaded") is Precision.INT8
    times.learn(fleet_pb2.ProbeResponse(tails=tails[1:]), now_s=0.0)
    assert times.precision("a") is Precision.FLOAT32


def test_a_contract_answered_at_length_is_left_alone_for_a_while_whatever_probes_say() -> None:
    times = CloudTimes()
    times.learn(state(0.0, a=5.0, b=5.0), now_s=0.0)
    times.overlong("a", now_s=0.0)
    times.learn(state(0.0, a=5.0, b=5.0), now_s=29.0)
    assert times.forecast("a", now_s=29.0) is NEVER
    assert times.forecast("b", now_s=29.0).mean_ms == 5.0
    assert times.forecast("a", now_s=31.0).mean_ms == 5.0


def test_a_cloud_that_loads_what_is_called_for_is_called() -> None:
    times = CloudTimes()
    times.learn(fleet_pb2.ProbeResponse(), now_s=0.0)
    assert times.forecast("a", now_s=0.0) == NEVER  # it is starting
    times.learn(fleet_pb2.ProbeResponse(uptime_s=0.1), now_s=0.0)
    assert not times.known
    assert 0.0 < mean_ms(times, "a") < 1_000.0
    times.lacks("a", now_s=0.0)
    assert times.forecast("a", now_s=1.0) == NEVER

from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.lateness import Lateness

times = st.lists(st.floats(-50, 1e4), max_size=300)


def test_a_process_that_has_just_started_is_believed_little() -> None:
    assert Lateness().reserve_ms == 60.0
    assert Lateness().after_ms == 40.0
    assert Lateness().overhead_ms == 0.0


def test_a_punctual_process_needs_next_to_nothing() -> None:
    lateness = Lateness()
    for _ in range(200):
        lateness.woke(0.25)
        lateness.left(0.5)
        lateness.took(0.3)
    assert lateness.reserve_ms == 0.25 + 2 * 0.5
    assert lateness.overhead_ms == 0.6


def test_one_late_wait_in_thirty_is_reckoned_with() -> None:
    lateness = Lateness()
    for wait in range(150):
        lateness.woke(30.0 if wait % 30 == 0 else 0.2)
        lateness.left(20.0 if wait % 30 == 0 else 0.1)
    assert lateness.reserve_ms == 30.0 + 2 * 20.0


def test_ways_in_that_were_told_are_reckoned_with_where_none_is() -> None:
    lateness = Lateness()
    for _ in range(200):
        lateness.woke(0.25)
        lateness.left(0.5)
    for request in range(31):
        lateness.arrived(40.0 if request % 30 == 0 else 1.0)
    assert (lateness.after_ms, lateness.reserve_ms) == (0.75, 1.25)
    lateness.arrived(1.0)
    assert (lateness.after_ms, lateness.reserve_ms) == (0.75, 40.75)


def test_what_others_made_late_is_no_overhead() -> None:
    lateness = Lateness()
    for answer in range(100):
        lateness.took(100.0 if answer % 2 else 0.5)
    assert lateness.overhead_ms == 1.0


@given(times, times, times, times)
def test_what_is_kept_back_lies_within_what_was_seen(
    late_ms: list[float], out_ms: list[float], in_ms: list[float], beside_ms: list[float]
) -> None:
    lateness = Lateness()
    for ms in late_ms:
        lateness.woke(ms)
    for ms in beside_ms:
        lateness.took(ms)
    for ms in out_ms:
        lateness.left(ms)
    for ms in in_ms:
        lateness.arrived(ms)
    after_ms = max([20.0, *late_ms]) + max([20.0, *out_ms])
    assert 0.0 <= lateness.after_ms <= after_ms
    assert lateness.after_ms <= lateness.reserve_ms
    assert lateness.reserve_ms <= after_ms + max([20.0, *out_ms, *in_ms])
    assert 0.0 <= lateness.overhead_ms <= 2 * max([0.0, *beside_ms])

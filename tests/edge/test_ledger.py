from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.ledger import Ledger, Purpose

SLOT_S = 10.0
bookings = st.lists(st.tuples(st.floats(0, 900), st.integers(0, 10**6)), max_size=60)


@given(bookings, st.floats(0, 8000))
def test_an_hour_is_remembered_and_no_more_than_a_slot_longer(
    gaps: list[tuple[float, int]], idle_s: float
) -> None:
    ledger, now_s, booked = Ledger(), 1000.0, []
    for gap_s, size_bytes in gaps:
        now_s += gap_s
        ledger.book(size_bytes, now_s=now_s)
        booked.append((now_s, size_bytes))
    now_s += idle_s
    spent = ledger.spent_bytes(now_s=now_s)
    assert spent >= sum(size for at_s, size in booked if at_s > now_s - 3600.0)
    assert spent <= sum(size for at_s, size in booked if at_s > now_s - 3600.0 - SLOT_S - 1e-6)
    assert ledger.total_bytes == sum(size for _, size in booked)


@given(st.lists(st.tuples(st.floats(-1e5, 1e5), st.integers(0, 10**6)), max_size=60))
def test_a_clock_that_jumps_loses_nothing_but_the_hour(jumps: list[tuple[float, int]]) -> None:
    ledger = Ledger()
    for now_s, size_bytes in jumps:
        ledger.book(size_bytes, now_s=now_s)
        assert size_bytes <= ledger.spent_bytes(now_s=now_s) <= ledger.total_bytes
    assert ledger.total_bytes == sum(size for _, size in jumps)


def test_two_weeks_take_no_more_room_than_an_hour() -> None:
    ledger = Ledger()
    for hour in range(24 * 14):
        for minute in range(0, 60, 5):
            ledger.book(10, now_s=hour * 3600.0 + minute * 60)
    assert ledger.spent_bytes(now_s=24 * 14 * 3600.0) in (110, 120)
    assert len(ledger._slots) <= 361


def test_what_bytes_were_for_is_kept() -> None:
    ledger = Ledger()
    ledger.book(1, now_s=0.0)
    ledger.book(20, now_s=0.0, purpose=Purpose.AUDITS)
    ledger.book(300, now_s=9_000.0, purpose=Purpose.AUDITS)
    assert ledger.by_purpose == {Purpose.ANSWERS: 1, Purpose.AUDITS: 320}
    assert (ledger.total_bytes, ledger.spent_bytes(now_s=9_000.0)) == (321, 300)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.board import Board, Crowds
from hybridge.edge.outlook import Waits
from hybridge.edge.processor import WANTED

LIGHT_MS, DECODE_MS, WORK_MS, NOW_S = 30.0, 2.0, 40.0, 100.0


def board_at(hz: float, *, lit: bool = True, sends: bool = False, used: float = 0.0) -> Board:
    """After twenty seconds of requests."""
    board = Board(light_ms=LIGHT_MS)
    for at in range(round(20 * hz), -1, -1):
        now_s = NOW_S - at / hz
        board.comes(now_s=now_s)
        if lit:
            board.lights(now_s=now_s)
        if sends:
            board.sends([WORK_MS / 4, 3 * WORK_MS / 4], now_s=now_s)
        board.used(used + at * 1e-9, decode_ms=DECODE_MS, now_s=now_s)
    return board


def crowds(board: Board, *, work_ms: float = WORK_MS) -> Crowds | None:
    return board.crowds(Waits(), decode_ms=DECODE_MS, work_ms=work_ms, now_s=NOW_S)


def test_requests_as_they_are_count_the_light_model_as_often_as_it_runs() -> None:
    waits = Waits(overhead_ms=8.0)
    for lit, ms in ((False, 10.0), (True, 40.0)):
        among = board_at(10.0, lit=lit, sends=True).among(waits, decode_ms=DECODE_MS, now_s=NOW_S)
        assert among.busy == pytest.approx(10 * ms / 1e3, rel=0.04)
        assert among.remote_hz == pytest.approx(10, rel=0.04)
        assert among.overhead_ms == 8.0


def test_where_all_have_room_for_everything_there_is_nothing_to_choose() -> None:
    assert crowds(board_at(10.0)) is None  # 0.72 of the board
    assert crowds(board_at(13.0)) is not None  # 0.94
    assert crowds(board_at(13.0), work_ms=30.0) is None
    assert crowds(Board(light_ms=LIGHT_MS)) is None  # nobody comes


def test_each_way_counts_what_all_requests_would_do() -> None:
    found = crowds(board_at(13.0, lit=False))
    assert found is not None
    assert found.first.busy == pytest.approx(13 * 0.032, rel=0.04)
    assert found.without.busy == pytest.approx(13 * 0.002, rel=0.04)
    assert found.first.remote_hz == found.without.remote_hz == pytest.approx(13, rel=0.04)
    assert (found.first.for_all, found.without.for_all) == (False, True)
    assert found.first.room == found.without.room == WANTED
    assert found.room_ms == pytest.approx((WANTED - 13 * 0.032) * 1e3 / 13, rel=0.04)


def test_with_light_models_alone_the_board_may_be_full() -> None:
    found = crowds(board_at(40.0))
    assert found is not None
    assert found.room_ms == 0.0


@given(st.floats(0, 1), st.booleans(), st.booleans())
def test_what_no_stage_accounts_for_counts_either_way(used: float, lit: bool, sends: bool) -> None:
    hz = 10.0
    found = crowds(board_at(hz, lit=lit, sends=sends, used=used), work_ms=1e3)
    assert found is not None
    stages = hz * (DECODE_MS + lit * LIGHT_MS + sends * WORK_MS) / 1e3
    beside = found.without.busy - hz * DECODE_MS / 1e3
    assert beside == pytest.approx(max(used - stages, 0.0), abs=0.04)
    assert found.first.busy - found.without.busy == pytest.approx(hz * LIGHT_MS / 1e3, rel=0.04)


def test_a_reading_counts_once() -> None:
    board = Board(light_ms=LIGHT_MS)
    board.comes(now_s=0.0)
    for _ in range(1000):
        board.used(0.5, decode_ms=0.0, now_s=0.0)
    found = board.crowds(Waits(), decode_ms=0.0, work_ms=1e3, now_s=0.0)
    assert found is not None
    assert found.without.busy == pytest.approx(0.05)


def test_a_clock_that_jumps_past_all_requests() -> None:
    """Who is still there is alone, however busy the processor was with something else."""
    board = board_at(10.0, lit=False, used=1.0)
    for at in range(100):
        board.used(1.0 + at * 1e-9, decode_ms=DECODE_MS, now_s=NOW_S + 1e6)
    found = board.crowds(Waits(), decode_ms=DECODE_MS, work_ms=WORK_MS, now_s=NOW_S + 1e6)
    assert found is None


def test_a_long_stage_that_has_begun_is_in_the_way_and_less_and_less() -> None:
    board = Board(light_ms=LIGHT_MS)
    assert board.in_the_way_ms(now_s=NOW_S) == 0.0
    board.sends([5.0, 80.0, 1.0], now_s=NOW_S)
    assert board.in_the_way_ms(now_s=NOW_S) == board.in_the_way_ms(now_s=NOW_S - 9.0) == 80.0
    board.sends([5.0, 10.0], now_s=NOW_S)
    assert board.in_the_way_ms(now_s=NOW_S) == 72.0
    assert board.in_the_way_ms(now_s=NOW_S + 100.0) < 0.01  # nobody has sent anything since
    for _ in range(30):
        board.sends([5.0, 10.0], now_s=NOW_S)
    assert board.in_the_way_ms(now_s=NOW_S) == 10.0


def test_waits_among_others_are_scaled_by_what_they_were() -> None:
    busy = Waits(busy=0.6, remote_hz=5.0)
    modelled_ms = busy.among_others_ms(WORK_MS) - WORK_MS
    assert modelled_ms > 50.0

    def waited(*waits_ms: float) -> float:
        board = Board(light_ms=LIGHT_MS)
        for each in waits_ms:
            board.took(WORK_MS + each, alone_ms=WORK_MS, waits=busy)
        among = board.among(Waits(), decode_ms=DECODE_MS, now_s=NOW_S)
        board.comes(now_s=NOW_S)
        all_of_them = board.crowds(Waits(), decode_ms=DECODE_MS, work_ms=1e6, now_s=NOW_S)
        assert all_of_them is not None
        assert among.waited == all_of_them.first.waited == all_of_them.without.waited
        return among.waited

    assert waited() == 1.0
    assert waited(0.0) > waited(0.0, 0.0) > 0.3  # two plans say little
    assert waited(*[0.0] * 200) < 0.1
    assert waited(*[modelled_ms / 2] * 200) == pytest.approx(0.5, abs=0.05)
    assert waited(*[3 * modelled_ms] * 200) == 1.0
    assert waited(*[-WORK_MS / 2] * 200) == waited(*[0.0] * 200)  # quicker than alone
    assert waited(*[0.0] * 200, *[modelled_ms] * 200) > 0.9


def test_what_is_expected_does_not_follow_from_itself() -> None:
    """A plan's wait is held against the model as it is, not as it was scaled before."""
    board, quiet = Board(light_ms=LIGHT_MS), Waits(busy=0.6, remote_hz=5.0, waited=0.01)
    for _ in range(200):
        board.took(WORK_MS, alone_ms=WORK_MS, waits=quiet)
    assert board.among(Waits(), decode_ms=DECODE_MS, now_s=NOW_S).waited < 0.1

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wan.records import Record
from wan.scoring import agreement, difference, gap_closed, in_budget_share, oracle, score

WANTED = {f"{number}.jpg": number % 3 for number in range(40)}
TABLE = {"local": 0.8, "cloud:png": 1.0, "cloud:jpeg-75": 0.9, "split:a/int8/affine4": 0.7}


def record(index: int, *, right: bool = True, ms: float = 50.0, plan: str = "local") -> Record:
    picture = f"{index % len(WANTED)}.jpg"
    return Record(
        index=index,
        picture=picture,
        budget_ms=100.0,
        scheduled_s=0.0,
        sent_s=0.0,
        answered_s=ms / 1e3,
        round_trip_ms=ms,
        predicted=WANTED[picture] if right else WANTED[picture] + 1,
        plan=plan,
    )


def lost(index: int) -> Record:
    return replace(record(index), predicted=None, error="UNAVAILABLE")


def answered(rights: Sequence[bool]) -> list[Record]:
    return [record(index, right=right) for index, right in enumerate(rights)]


def test_shares_are_of_all_requests() -> None:
    records = [record(0), record(1, right=False), record(2, ms=100.1), lost(3)]
    assert in_budget_share(records) == 0.5
    assert agreement(records, WANTED) == 0.25


def test_a_score_says_what_the_answered_requests_took() -> None:
    found = score([record(0, ms=10), record(1, ms=30), lost(2)], WANTED)
    assert (found.requests, found.answered) == (3, pytest.approx(2 / 3))
    assert (found.mean_ms, found.p50_ms) == (20, 20)


def test_a_difference_is_paired_and_has_an_interval_around_it() -> None:
    ours = answered([True] * 40)
    theirs = answered([index % 4 != 0 for index in range(40)])
    found = difference(ours, theirs, WANTED)
    assert found.value == 0.25
    assert found.low < 0.25 < found.high
    assert found.above_zero
    assert not found.below_zero
    assert difference(theirs, ours, WANTED).below_zero


def test_what_is_the_same_differs_by_nothing() -> None:
    records = answered([index % 3 == 0 for index in range(40)])
    found = difference(records, records, WANTED)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_many_answers_to_one_picture_are_no_more_evidence_than_one() -> None:
    few = [replace(record(index), picture=f"{index % 4}.jpg") for index in range(40)]
    right = [replace(each, predicted=WANTED[each.picture]) for each in few]
    wrong = [replace(each, predicted=9) if each.picture == "0.jpg" else each for each in right]
    by_few = difference(right, wrong, WANTED)
    by_many = difference(
        answered([True] * 40), answered([index % 4 != 0 for index in range(40)]), WANTED
    )
    assert by_few.value == by_many.value
    assert by_few.high - by_few.low > 2 * (by_many.high - by_many.low)


def test_only_the_same_requests_can_be_compared() -> None:
    with pytest.raises(ValueError, match="same requests"):
        difference(answered([True] * 3), answered([True] * 2), WANTED)
    with pytest.raises(ValueError, match="same requests"):
        difference([], [], WANTED)


def test_the_oracle_takes_the_best_plan_of_the_table_that_came_in_time() -> None:
    local = [record(index) for index in range(5)]
    png, jpeg = "cloud:png", "cloud:jpeg-75"
    replays = {
        png: [
            record(0, plan=png),
            record(1, plan=png, ms=150),
            record(2, plan="local"),  # the device's answer, not the plan's
            replace(record(3, plan=png), fallback="cloud late"),
            lost(4),
        ],
        jpeg: [
            record(0, plan=jpeg),
            record(1, plan=jpeg),
            record(2, plan=jpeg, right=False),  # it knows the link, not the labels
            record(3, plan=jpeg, ms=101),
            record(4, plan=jpeg, ms=99),
        ],
        "split:a/int8/affine4": [record(i, plan="split:a/int8/affine4") for i in range(5)],
    }
    chosen = oracle(replays, local, table=TABLE)
    assert [each.plan for each in chosen] == [png, jpeg, jpeg, "local", jpeg]
    assert chosen[2].predicted != WANTED[chosen[2].picture]


def test_the_gap_closed_is_the_share_of_the_way_to_the_oracle() -> None:
    local = answered([index % 2 == 0 for index in range(40)])
    best = answered([True] * 40)
    ours = answered([index % 4 != 1 for index in range(40)])
    found = gap_closed(ours, local, best, WANTED)
    assert found is not None
    assert found.value == 0.5
    assert found.low < 0.5 < found.high


def test_where_there_is_no_gap_none_is_closed() -> None:
    local = answered([index != 7 for index in range(40)])
    best = answered([True] * 40)
    assert gap_closed(best, local, best, WANTED) is None  # one picture of forty is no evidence


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_differences_turn_around(pairs: list[tuple[bool, bool]]) -> None:
    ours, theirs = answered([a for a, _ in pairs]), answered([b for _, b in pairs])
    there, back = difference(ours, theirs, WANTED), difference(theirs, ours, WANTED)
    assert there.value == pytest.approx(-back.value)
    assert there.low <= there.value + 1e-12
    assert there.value <= there.high + 1e-12
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))

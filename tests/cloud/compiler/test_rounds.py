"""Elimination in rounds: what is dropped early would have been dropped in the end."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hybridge.cloud.compiler.rounds import Tally, device_work, losers, rounds, spread
from hybridge.shared.manifest import Precision
from hybridge.shared.plan import Plan

WORK = {"early": 0.2, "late": 0.8}
EARLY = Plan.split("early", head="int8", codec="affine4")
LATE = Plan.split("late", head="int8", codec="affine4")
PICTURE = Plan.cloud("jpeg-90")


def tally(agreed: list[float], sizes: list[int]) -> Tally:
    return Tally(agreed={Precision.FLOAT32: agreed}, sizes=sizes)


def test_what_is_worse_in_all_goes() -> None:
    good, bad = tally([1.0] * 16, [100] * 16), tally([0.0] * 16, [200] * 16)
    assert losers({EARLY: good, LATE: bad}, work=WORK) == {LATE}
    assert losers({EARLY: bad, LATE: good}, work=WORK) == set()  # the good one works more
    assert losers({PICTURE: good, EARLY: bad, LATE: bad}, work=WORK) == {EARLY, LATE}


def test_fewer_bytes_or_better_answers_keep_a_plan() -> None:
    for agreed, size in ((0.0, 99), (1.0, 300)):
        rivals = {EARLY: tally([0.9] * 64, [100] * 64), LATE: tally([agreed] * 64, [size] * 64)}
        assert losers(rivals, work=WORK) == set()


def test_ties_and_small_differences_stay() -> None:
    good = tally([1.0] * 16, [100] * 16)
    assert losers({EARLY: good, LATE: tally([1.0] * 16, [200] * 16)}, work=WORK) == set()
    nearly = tally([1.0] * 15 + [0.0], [200] * 16)
    assert losers({EARLY: good, LATE: nearly}, work=WORK) == set()


def test_rivals_that_are_no_splits_are_never_dropped() -> None:
    rivals = {
        Plan.cloud("raw"): tally([1.0] * 32, [10] * 32),
        PICTURE: tally([0.0] * 32, [900] * 32),
        Plan.local(): tally([0.0] * 32, [0] * 32),
    }
    assert losers(rivals, work=WORK) == set()


def test_views_of_a_picture_count_once() -> None:
    """Two pictures prove nothing, however many views of them there are."""
    rivals = {EARLY: tally([1.0] * 2, [100] * 80), LATE: tally([0.0] * 2, [200] * 80)}
    assert losers(rivals, work=WORK) == set()


def test_an_int8_head_is_a_third_of_the_work() -> None:
    float32 = Plan.split("late", head="float32", codec="affine4")
    assert device_work(LATE, WORK) * 3 == device_work(float32, WORK)
    assert device_work(PICTURE, WORK) == 0


@given(st.integers(1, 500))
def test_rounds_double_and_end_with_all(count: int) -> None:
    ends = rounds(count)
    assert ends[-1] == count
    assert ends == sorted(set(ends))
    assert all(2 * end <= count for end in ends[:-1])
    assert all(b <= 4 * a for a, b in pairwise(ends))


@given(st.integers(1, 300))
def test_every_beginning_is_spread_over_all(count: int) -> None:
    order = spread(count)
    assert sorted(order) == list(range(count))
    first = np.sort(order[: max(1, count // 4)])
    assert np.diff(first, prepend=-1, append=count).max() <= 16

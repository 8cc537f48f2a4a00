"""A sequence that is worked out while it is looked at."""

import pytest

from hybridge.edge.best_first import BestFirst
from hybridge.shared.manifest import Rate

RATES = [Rate.of(hits, 20) for hits in (20, 19, 18, 17)]


def test_nothing_is_worked_out_twice_or_before_it_is_looked_at() -> None:
    made: list[int] = []

    def work_out(place: int) -> int:
        made.append(place)
        return 5 - place

    options = BestFirst(work_out, agreements=RATES)
    assert len(options) == 4
    assert made == []
    assert next(iter(options)) == 5
    assert options[2] == 3
    assert made == [0, 2]
    assert options[1:3] == [4, 3]
    assert options[-1] == 2
    assert list(options) == list(options) == [5, 4, 3, 2]
    assert made == [0, 2, 1, 3]
    with pytest.raises(IndexError):
        options[4]


def test_two_may_look_at_once() -> None:
    options = BestFirst("abcd".__getitem__, agreements=RATES)
    one, other = iter(options), iter(options)
    assert [next(one), next(other), next(other), next(one)] == ["a", "a", "b", "b"]
    assert [*one] == [*other] == ["c", "d"]

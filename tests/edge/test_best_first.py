"""A sequence that is worked out while it is looked at."""

from collections.abc import Iterator

from hybridge.edge.best_first import BestFirst


def test_nothing_is_worked_out_twice_or_before_it_is_looked_at() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for value in (5, 4, 3, 2):
            made.append(value)
            yield value

    options = BestFirst(items(), count=4)
    assert len(options) == 4
    assert made == []
    assert next(iter(options)) == 5
    assert options[1] == 4
    assert made == [5, 4]
    assert options[1:3] == [4, 3]
    assert options[-1] == 2
    assert list(options) == list(options) == [5, 4, 3, 2]
    assert made == [5, 4, 3, 2]


def test_two_may_look_at_once() -> None:
    options = BestFirst(iter("abcd"), count=4)
    one, other = iter(options), iter(options)
    assert [next(one), next(other), next(other), next(one)] == ["a", "a", "b", "b"]
    assert [*one] == [*other] == ["c", "d"]

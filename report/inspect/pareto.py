"""What nothing else beats. Pure."""

from collections.abc import Sequence


def on_front(costs: Sequence[tuple[float, ...]]) -> list[bool]:
    """For each, whether no other is at most as dear in everything and cheaper in something.

    >>> on_front([(1, 5), (2, 2), (3, 2), (5, 1)])
    [True, True, False, True]
    """
    return [not any(_beats(other, own) for other in costs) for own in costs]


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(x <= y for x, y in zip(one, other, strict=True))

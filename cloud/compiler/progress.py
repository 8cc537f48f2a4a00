"""How far long work is, told to whoever watches."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Progress = Callable[[str, int, int], None]
"""Told (step, done, total); total is 0 where a step cannot say how far it is."""
Count = Callable[[int, int], None]
"""Told (done, total)."""


class Items(Protocol[T_co]):
    """Things of which it is known how many they are."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T_co]: ...


def unwatched(step: str, done: int, total: int) -> None:
    """The audience of work that nobody watches."""


def uncounted(done: int, total: int) -> None:
    """The same, of a count."""


def within(progress: Progress, step: str) -> Progress:
    """Tells of the parts of a step, by its name and theirs."""
    return lambda part, done, total: progress(f"{step}: {part}", done, total)


class Ticks:
    """Counts what is done of so much in all.

    >>> list(Ticks(print, 2).over("ab"))
    0 2
    1 2
    2 2
    ['a', 'b']
    """

    def __init__(self, count: Count, total: int) -> None:
        self._count, self._done, self._total = count, 0, total
        count(0, total)

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """Each counts as done when the next one is wanted."""
        for item in items:
            yield item
            self.skip(1)

    def skip(self, items: int) -> None:
        """So many need not be done."""
        self._done += items
        self._count(self._done, self._total)


def counted(items: Items[T], count: Count) -> Iterator[T]:
    """All items, counted."""
    return Ticks(count, len(items)).over(items)

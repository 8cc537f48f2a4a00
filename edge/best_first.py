"""A sequence, the best first, whose items are worked out when somebody looks at them. Pure."""

from collections.abc import Iterator, Sequence
from typing import TypeVar, overload

T_co = TypeVar("T_co", covariant=True)


class BestFirst(Sequence[T_co]):
    """What `items` yields, `count` of them. Whoever has seen enough may stop looking.

    >>> options = BestFirst(iter([3, 2, 1]), count=3)
    >>> options[0], len(options), list(options)
    (3, 3, [3, 2, 1])
    """

    def __init__(self, items: Iterator[T_co], *, count: int) -> None:
        self._items = items
        self._count = count
        self._known: list[T_co] = []

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T_co]:
        known = self._known
        for at in range(self._count):
            if at == len(known):
                known.append(next(self._items))
            yield known[at]

    @overload
    def __getitem__(self, at: int) -> T_co: ...
    @overload
    def __getitem__(self, at: slice) -> list[T_co]: ...
    def __getitem__(self, at: int | slice) -> T_co | list[T_co]:
        enough = at + 1 if isinstance(at, int) and at >= 0 else self._count
        while len(self._known) < enough:
            self._known.append(next(self._items))
        return self._known[at]

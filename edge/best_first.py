"""A sequence, the best first, whose items are worked out when somebody looks at them. Pure."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, overload

from ..shared.manifest import Rate

T_co = TypeVar("T_co", covariant=True)


def _at_once(at: int) -> float:
    return 0.0


class BestFirst(Sequence[T_co]):
    """An item for each of `agreements`, by its place. Whoever has seen enough may stop looking.

    `soonest_ms` says of a place what its item takes at least, for less than working it out.

    >>> rates = [Rate.of(hits, 20) for hits in (20, 19, 18)]
    >>> options = BestFirst(lambda at: 3 - at, agreements=rates)
    >>> options[0], len(options), list(options)
    (3, 3, [3, 2, 1])
    """

    def __init__(
        self,
        work_out: Callable[[int], T_co],
        *,
        agreements: Sequence[Rate],
        soonest_ms: Callable[[int], float] = _at_once,
    ) -> None:
        self.agreements = agreements
        self.soonest_ms = soonest_ms
        self._work_out = work_out
        self._known: dict[int, T_co] = {}

    def __len__(self) -> int:
        return len(self.agreements)

    def __iter__(self) -> Iterator[T_co]:
        return map(self.at, range(len(self.agreements)))

    def at(self, place: int) -> T_co:
        """The item at a place, counted from 0."""
        found = self._known.get(place)
        if found is None:
            found = self._known[place] = self._work_out(place)
        return found

    @overload
    def __getitem__(self, place: int) -> T_co: ...
    @overload
    def __getitem__(self, place: slice) -> list[T_co]: ...
    def __getitem__(self, place: int | slice) -> T_co | list[T_co]:
        places = range(len(self.agreements))[place]
        return self.at(places) if isinstance(places, int) else list(map(self.at, places))

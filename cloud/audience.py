"""Who waits for what a thread computes."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from ..shared.side import Tensors
from ..shared.tensor import Array
from .job import Job


class Task(Protocol):
    """A work as whoever carries it out sees it."""

    @property
    def job(self) -> Job: ...

    @property
    def load(self) -> Callable[[], Array]: ...

    @property
    def sides(self) -> Tensors: ...

    @property
    def unwanted(self) -> bool: ...

    def when_done(self, act: Callable[[object], object]) -> None:
        """Calls `act` on the waiter's event loop once nobody waits any more."""


@dataclass(frozen=True, slots=True)
class Audience:
    """Those who wait for what the calling thread computes."""

    works: Sequence[Task]

    @property
    def deadline_s(self) -> float:
        """The last of theirs, on the clock of `shared/deadline`."""
        return max(work.job.deadline_s for work in self.works)

    @property
    def rank(self) -> int:
        """The first of theirs."""
        return min(work.job.rank for work in self.works)

    def when_gone(self, act: Callable[[], object]) -> None:
        """Calls `act` once nobody waits any more, on their event loop."""

        def look(_: object) -> None:
            if all(work.unwanted for work in self.works):
                act()

        for work in self.works:
            work.when_done(look)


WAITING: ContextVar[Sequence[Task]] = ContextVar("waiting", default=())
"""Set by whoever carries works out, while their results are computed."""


def audience() -> Audience | None:
    """Who waits for what the calling thread computes; None where a model is tried."""
    works = WAITING.get()
    return Audience(works) if works else None

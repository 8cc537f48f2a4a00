"""What is asked of the scheduler: a graph, and one request for it."""

from typing import NamedTuple

import msgspec


class StageKey(NamedTuple):
    """One graph of one version of one model; `cut` is empty for the whole.

    `revision` tells it from another of the same name, while one takes the other's place.
    """

    model: str
    version: str
    cut: str = ""
    revision: int = 0

    def __str__(self) -> str:
        return f"{self.model}/{self.version}/{self.cut or 'whole'}"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One request's computation: `items` inputs for a stage, wanted by `deadline_s`.

    `rank` is its priority: lower ones go first, 0 is the default. Among its rank its turn is by
    its deadline, or by `turn_s` where that is not known so exactly.
    """

    id: int
    stage: StageKey
    items: int
    arrived_s: float
    deadline_s: float
    rank: int = 0
    turn_s: float | None = None

    @property
    def order(self) -> tuple[int, float, int]:
        turn_s = self.deadline_s if self.turn_s is None else self.turn_s
        return (self.rank, turn_s, self.id)

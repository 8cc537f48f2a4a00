"""Which waiting jobs of a stage run together, and when they start. Pure.

Where larger batches make items cheaper, a batch is as large as they are worth, and may wait for
company. Where two only cost no more than one after the other, they go together out of a crowd,
which saves a handover; not if an instance that is free as soon would have nothing to do then.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .cost import Cost
from .job import Job

_AS_SOON = 0.5
"""Of a run: an instance that is free so soon after another shares what waits."""


_CALM = 4.0
"""So many times as long as their batch takes those must have who run together out of a crowd: under
overload everything runs at the edge of its deadline, and the first of two ends a run later."""


@dataclass(slots=True)
class Group:
    """Jobs that would run together; `hopeless` are those before them."""

    jobs: tuple[Job, ...]
    hopeless: tuple[Job, ...]
    full: bool

    @property
    def items(self) -> int:
        return sum(job.items for job in self.jobs)

    @property
    def deadline_s(self) -> float:
        return min(job.deadline_s for job in self.jobs)


def room(waiting: int, cost: Cost, *, at_s: float, free_s: Sequence[float]) -> int:
    """How many items a batch may have that begins at an instant, by when instances are free.

    One instance alone takes no two out of a crowd: under overload it kept its promise less well.
    """
    most = cost.batch_items
    if cost.crowd_items <= most or waiting <= most or len(free_s) <= 1:
        return most
    soon_s = at_s + _AS_SOON * cost.predict_ms(1) / 1e3
    sharing = sum(each_s <= soon_s for each_s in free_s)
    return max(most, min(cost.crowd_items, waiting // max(1, sharing)))


def form(queue: list[Job], cost: Cost, *, at_s: float, most: int) -> Group:
    """The jobs of a sorted queue that would run together at an instant.

    The first job that can still be in time leads; others join while there are not more than `most`
    items, and all in the batch stay in time.
    """
    at = in_time(queue, cost, at_s=at_s)
    hopeless = tuple(queue[:at])
    if at == len(queue):
        return Group((), hopeless, full=False)
    end, _, full = together(queue, cost, at_s=at_s, first=at, most=most)
    return Group(tuple(queue[at:end]), hopeless, full=full)


def starts_s(group: Group, cost: Cost, now_s: float) -> float:
    """When a group should start: at once if full, else when its clock or its slack runs out."""
    if group.full or not cost.linger_ms:
        return now_s
    clock_s = min(job.arrived_s for job in group.jobs) + cost.linger_ms / 1e3
    company_ms = cost.surely_ms(cost.batch_items)
    return min(clock_s, group.deadline_s - company_ms / 1e3)


def together(
    queue: list[Job], cost: Cost, *, at_s: float, first: int, most: int
) -> tuple[int, int, bool]:
    """Where the batch that a job leads ends, how many items it has, and whether it is full."""
    leader = queue[first]
    deadline_s = leader.deadline_s
    # Out of a crowd go those together who would not mind waiting some runs more.
    calm = _CALM if most > cost.batch_items else 1.0
    end, items, full = first + 1, leader.items, leader.items >= most
    while end < len(queue) and not full:
        more = items + queue[end].items
        deadline_s = min(deadline_s, queue[end].deadline_s)
        full = more > most or ends_s(cost, more, at_s, times=calm) > deadline_s
        if not full:
            items, end = more, end + 1
            full = items == most
    return end, items, full


def in_time(queue: list[Job], cost: Cost, *, at_s: float, first: int = 0) -> int:
    """Where the first job is that can still be in time; the end if none can."""
    while first < len(queue) and ends_s(cost, queue[first].items, at_s) > queue[first].deadline_s:
        first += 1
    return first


def ends_s(cost: Cost, items: int, at_s: float, *, times: float = 1.0) -> float:
    """When a batch that begins at an instant has almost surely ended, even `times` as long."""
    return at_s + times * cost.surely_ms(items) / 1e3

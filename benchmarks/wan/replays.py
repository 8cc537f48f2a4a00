"""Which plans are replayed for a cell's oracle, and when it is known. Pure.

The oracle takes for each request the plan of highest agreement that would have arrived. Not every
plan has to be replayed to know which that is: what sends no fewer bytes and computes no less on the
device than a plan that was late would have been late too, and what agrees no more often than a plan
that was in time would not be taken.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hybridge.edge.outlook import device_stages
from hybridge.shared.manifest import PlanRow
from hybridge.shared.plan import PlanKind

from .records import Record

LOCAL = str(PlanKind.LOCAL)


@dataclass(frozen=True, slots=True)
class Costs:
    """What a plan is worth, and what it takes: bytes sent (p50), ms of the device's processor."""

    agreement: float
    sent_bytes: float
    device_ms: float

    def none_more(self, other: "Costs") -> bool:
        """Whether it takes no more of anything than the other."""
        return self.sent_bytes <= other.sent_bytes and self.device_ms <= other.device_ms


def costs_of(rows: Iterable[PlanRow], work_ms: Mapping[str, float]) -> dict[str, Costs]:
    """What each plan of a bundle's table takes, by the device's time for each stage."""
    plans = [(row, row.parsed()) for row in rows]
    return {
        row.plan: Costs(
            agreement=row.agreement.value,
            sent_bytes=row.bytes_p50,
            device_ms=sum(work_ms[stage] for stage in device_stages(plan)),
        )
        for row, plan in plans
    }


def front(plans: Mapping[str, Costs]) -> list[str]:
    """Those that no other beats in agreement, bytes and time on the device all at once."""
    kept: list[str] = []
    for plan in sorted(plans, key=lambda plan: _order(plans[plan])):
        if not any(plans[other].none_more(plans[plan]) for other in kept):
            kept.append(plan)
    return kept


def own(record: Record, plan: str) -> bool:
    """Whether this is an answer the plan itself gave, in time."""
    return record.in_budget and record.plan == plan and not record.fallback


def next_replay(
    plans: Mapping[str, Costs], replays: Mapping[str, Sequence[Record]], requests: Collection[int]
) -> str | None:
    """The plan to replay next; None when no other could change what the oracle takes.

    `plans` includes `local`, which every request can have; `replays` holds what happened to
    requests of the cell, by their index, when all took one plan. First come those that nothing
    undercuts in both bytes and time: where they all fail, nothing can arrive.
    """
    floor = plans[LOCAL].agreement
    worth = {plan: each for plan, each in plans.items() if plan != LOCAL}
    worth = {plan: each for plan, each in worth.items() if each.agreement >= floor}
    missing = _open(worth, replays, requests)
    least = [
        plan for plan in missing if not any(_less(other, worth[plan]) for other in worth.values())
    ]
    return min(least or missing, key=lambda plan: _order(worth[plan]), default=None)


def _open(
    worth: Mapping[str, Costs], replays: Mapping[str, Sequence[Record]], requests: Collection[int]
) -> list[str]:
    """The plans that may yet be the best for a request which has not met them."""
    best = dict.fromkeys(requests, -1.0)
    late: dict[int, list[Costs]] = {request: [] for request in requests}
    met: dict[int, set[str]] = {request: set() for request in requests}
    for plan in worth.keys() & replays.keys():
        for record in replays[plan]:
            if record.index not in best:
                continue
            met[record.index].add(plan)
            if own(record, plan):
                best[record.index] = max(best[record.index], worth[plan].agreement)
            else:
                late[record.index].append(worth[plan])
    return [
        plan
        for plan, costs in worth.items()
        if any(
            plan not in met[request]
            and costs.agreement > best[request]
            and not any(failed.none_more(costs) for failed in late[request])
            for request in requests
        )
    ]


def _less(costs: Costs, other: Costs) -> bool:
    return costs.none_more(other) and not other.none_more(costs)


def _order(costs: Costs) -> tuple[float, float, float]:
    """The most worth first, and of those the one that takes the least."""
    return -costs.agreement, costs.sent_bytes, costs.device_ms

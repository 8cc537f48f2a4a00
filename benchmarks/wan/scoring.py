"""What records say: the promise kept, agreement with the large model, how near it is to the best.

Pure. An answer counts as agreeing if it is the large model's and came within its budget: a late
one is worth nothing to whoever set the budget. Policies of a cell are compared request by request;
the intervals are percentiles of a bootstrap that draws pictures, with all requests that showed
them, since answers to the same picture are no independent evidence (Davison and Hinkley, Bootstrap
Methods and their Application, 3.8).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from .records import Record
from .replays import LOCAL, own

_DRAWS = 4_000
_LOW, _HIGH = 0.025, 0.975

Floats = npt.NDArray[np.float64]
Wanted = Mapping[str, int]
"""The large model's own answer to each picture."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, draws: Floats) -> Self:
        low, high = (float(each) for each in np.quantile(draws, [_LOW, _HIGH]))
        return cls(value, low, high)

    @property
    def above_zero(self) -> bool:
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        return self.high < 0


@dataclass(frozen=True, slots=True)
class Score:
    """One policy in one cell. Shares are of all requests."""

    requests: int
    answered: float
    in_budget: float
    agreement: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    provisional: float
    sent_bytes: float


def in_budget_share(records: Sequence[Record]) -> float:
    """The share of requests whose answer came within the budget."""
    return _mean([record.in_budget for record in records])


def agrees(record: Record, wanted: Wanted) -> bool:
    """Whether the answer is the large model's, and came in time."""
    return record.in_budget and record.predicted == wanted[record.picture]


def agreement(records: Sequence[Record], wanted: Wanted) -> float:
    """The share of requests that were answered as the large model does, in time."""
    return _mean([agrees(record, wanted) for record in records])


def score(records: Sequence[Record], wanted: Wanted) -> Score:
    """Everything about one policy in one cell; times are of the answered requests."""
    times_ms = [record.round_trip_ms for record in records if record.answered]
    p50_ms, p99_ms = np.quantile(times_ms, [0.5, 0.99]) if times_ms else (np.inf, np.inf)
    return Score(
        requests=len(records),
        answered=_mean([record.answered for record in records]),
        in_budget=in_budget_share(records),
        agreement=agreement(records, wanted),
        mean_ms=_mean(times_ms) if times_ms else np.inf,
        p50_ms=float(p50_ms),
        p99_ms=float(p99_ms),
        provisional=_mean([record.provisional for record in records]),
        sent_bytes=_mean([record.sent_bytes for record in records]),
    )


def difference(
    ours: Sequence[Record], theirs: Sequence[Record], wanted: Wanted, *, seed: int = 0
) -> Interval:
    """By how much our agreement is above theirs, paired."""
    a, b, sizes = _by_picture([ours, theirs], wanted)
    drawn = _draw(len(sizes), seed=seed)
    value = float((a - b).sum() / sizes.sum())
    return Interval.of(value, drawn @ (a - b) / (drawn @ sizes))


def oracle(
    replays: Mapping[str, Sequence[Record]],
    local: Sequence[Record],
    *,
    table: Mapping[str, float],
) -> list[Record]:
    """What the best choice for each request would have been, had the link been known.

    `replays` holds, for each plan, what happened when all requests of the cell took it: for each
    request the plan of highest agreement in the bundle's table is taken whose own answer came in
    time, else what the device said alone. It knows the link, not the labels.
    """
    order = sorted(replays, key=lambda plan: table[plan], reverse=True)
    best_first = [{record.index: record for record in replays[plan]} for plan in order]
    floor = table[LOCAL]
    chosen = []
    for record in local:
        candidates = (
            replay[record.index]
            for plan, replay in zip(order, best_first, strict=True)
            if table[plan] >= floor and record.index in replay and own(replay[record.index], plan)
        )
        chosen.append(next(candidates, record))
    return chosen


def gap_closed(
    ours: Sequence[Record],
    local: Sequence[Record],
    best: Sequence[Record],
    wanted: Wanted,
    *,
    seed: int = 0,
) -> Interval | None:
    """The share of the way from `local` to the oracle that was gone; None where there is no way.

    There is one where the oracle's lead over `local` exceeds its own interval.
    """
    if not difference(best, local, wanted, seed=seed).above_zero:
        return None
    a, b, c, sizes = _by_picture([ours, local, best], wanted)
    drawn = _draw(len(sizes), seed=seed)
    gaps, won = drawn @ (c - b), drawn @ (a - b)
    there = gaps > 0
    return Interval.of(float((a - b).sum() / (c - b).sum()), won[there] / gaps[there])


def _by_picture(policies: Sequence[Sequence[Record]], wanted: Wanted) -> list[Floats]:
    """How many requests agreed, per policy and picture, and how many there were per picture."""
    asked = [{(record.index, record.picture) for record in records} for records in policies]
    if any(each != asked[0] for each in asked) or not asked[0]:
        raise ValueError("only policies that met the same requests can be compared")
    position = {picture: at for at, picture in enumerate(sorted({p for _, p in asked[0]}))}
    counts = [np.zeros(len(position)) for _ in policies]
    for count, records in zip(counts, policies, strict=True):
        for record in records:
            count[position[record.picture]] += agrees(record, wanted)
    sizes = np.zeros(len(position))
    for _, picture in asked[0]:
        sizes[position[picture]] += 1
    return [*counts, sizes]


def _draw(pictures: int, *, seed: int) -> Floats:
    """How often each picture was drawn, float64 [draws, pictures]."""
    random = np.random.default_rng(seed)
    shares = np.full(pictures, 1 / pictures)
    return random.multinomial(pictures, shares, size=_DRAWS).astype(np.float64)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0

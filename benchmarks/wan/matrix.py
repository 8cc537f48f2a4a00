"""The matrix: which cells there are, and what those that were measured say together. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from hybridge.shared.errors import ConfigError

from .policies import make_policy
from .records import Cell, Measured, Record
from .replays import LOCAL, Costs, next_replay
from .scoring import Interval, Score, Wanted, difference, gap_closed, in_budget_share, oracle, score

OURS, FIXED = "ours", "fixed:"
ORACLE = "oracle"
POLICIES = (OURS, LOCAL, "cloud-jpeg", "cloud-raw", "neurosurgeon", "cascade")


@dataclass(frozen=True, slots=True)
class Matrix:
    """Everything that varies; ours may get more requests than its rivals, as further seeds."""

    pair: str
    links: Sequence[str]
    budgets_ms: Sequence[float]
    policies: Sequence[str]
    requests: int
    rate_hz: float
    seeds: int = 1
    ours_seeds: int = 1

    def __post_init__(self) -> None:
        if not (self.links and self.budgets_ms and self.policies):
            raise ConfigError("no cells: it takes a link, a budget and a policy at least")
        check_budgets_ms(self.budgets_ms)
        check_policies(self.policies)
        if not (math.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise ConfigError(f"--rate {self.rate_hz:g}: above 0 requests a second")
        if min(self.requests, self.seeds, self.ours_seeds) < 1:
            raise ConfigError("--requests, --seeds and --ours-seeds: at least 1")

    def cells(self) -> list[Cell]:
        """In the order in which they are run: the policies of a cell one after the other.

        Each seed begins elsewhere in a recorded link.
        """
        lasts_s = self.requests / self.rate_hz
        return [
            Cell(
                pair=self.pair,
                link=link,
                budget_ms=budget_ms,
                policy=policy,
                requests=self.requests,
                rate_hz=self.rate_hz,
                seed=seed,
                offset_s=round(seed * lasts_s, 3),
            )
            for link in self.links
            for budget_ms in self.budgets_ms
            for seed in range(max(self.seeds, self.ours_seeds))
            for policy in self.policies
            if seed < (self.ours_seeds if policy == OURS else self.seeds)
        ]


def read_budgets_ms(text: str) -> list[float]:
    """Budgets by comma; ConfigError for what is none."""
    try:
        budgets_ms = [float(each) for each in text.split(",")]
    except ValueError:
        raise ConfigError(f"--budgets {text}: milliseconds by comma, such as 100,400") from None
    check_budgets_ms(budgets_ms)
    return budgets_ms


def check_budgets_ms(budgets_ms: Iterable[float]) -> None:
    for budget_ms in budgets_ms:
        if not (math.isfinite(budget_ms) and budget_ms > 0):
            raise ConfigError(f"--budgets {budget_ms:g}: above 0 ms, such as 100,400")


def check_policies(names: Iterable[str]) -> None:
    """ConfigError for a name that no policy has."""
    for name in names:
        try:
            make_policy(name)
        except ValueError as error:
            known = ", ".join(POLICIES)
            raise ConfigError(f"{error} (there: {known}, {FIXED}PLAN)") from error


@dataclass(frozen=True, slots=True)
class Group:
    """One link and budget: what each policy came to, and how ours compares."""

    link: str
    budget_ms: float
    scores: Mapping[str, Score]
    against: Mapping[str, Interval]
    gap_closed: Interval | None

    def as_json(self) -> dict[str, Any]:
        return {
            "link": self.link,
            "budget_ms": self.budget_ms,
            "scores": {policy: asdict(each) for policy, each in self.scores.items()},
            "ours_minus": {policy: asdict(each) for policy, each in self.against.items()},
            "gap_closed": asdict(self.gap_closed) if self.gap_closed else None,
        }


def groups(
    measured: Iterable[Measured], wanted: Wanted, *, plans: Mapping[str, Costs]
) -> list[Group]:
    """One per link and budget, in the order of the cells.

    Rivals are compared with ours on the seeds they have in common. Where enough of `plans` were
    replayed to know what the oracle would have taken, it is one of the policies; without `plans`
    it is not looked for.
    """
    found: dict[tuple[str, float], dict[str, list[Measured]]] = {}
    for each in measured:
        policies = found.setdefault((each.cell.link, each.cell.budget_ms), {})
        policies.setdefault(each.cell.policy, []).append(each)
    return [
        _group(link, budget_ms, policies, wanted, plans)
        for (link, budget_ms), policies in found.items()
    ]


def pooled(measured: Iterable[Measured], policy: str, link: str | None = None) -> list[Record]:
    """All requests of a policy, over one link or all of them."""
    return [
        record
        for each in measured
        if each.cell.policy == policy and link in (None, each.cell.link)
        for record in each.records
    ]


def worst_link(measured: Sequence[Measured], policy: str) -> tuple[str, float]:
    """The link over which the smallest share of a policy's requests was in budget."""
    links = {each.cell.link for each in measured if each.cell.policy == policy}
    shares = {link: in_budget_share(pooled(measured, policy, link)) for link in sorted(links)}
    worst = min(shares, key=lambda link: shares[link])
    return worst, shares[worst]


def _group(
    link: str,
    budget_ms: float,
    policies: Mapping[str, Sequence[Measured]],
    wanted: Wanted,
    plans: Mapping[str, Costs],
) -> Group:
    records = {policy: _joined(cells) for policy, cells in policies.items()}
    replays = {
        policy.removeprefix(FIXED): each
        for policy, each in records.items()
        if policy.startswith(FIXED)
    }
    best: Sequence[Record] | None = None
    if plans and LOCAL in records:
        shared = {plan: each for plan, each in replays.items() if plan in plans}
        if next_replay(plans, shared, [record.index for record in records[LOCAL]]) is None:
            table = {plan: costs.agreement for plan, costs in plans.items()}
            best = oracle(shared, records[LOCAL], table=table)
            records[ORACLE] = list(best)
    ours = records.get(OURS)
    against, closed = {}, None
    if ours is not None:
        against = {
            policy: difference(_only(ours, theirs), _only(theirs, ours), wanted)
            for policy, theirs in records.items()
            if policy != OURS
        }
        if best is not None:
            closed = gap_closed(_only(ours, best), records[LOCAL], best, wanted)
    scores = {policy: score(each, wanted) for policy, each in records.items()}
    return Group(link, budget_ms, scores, against, closed)


def _joined(cells: Sequence[Measured]) -> list[Record]:
    """The requests of several seeds, under numbers that tell them apart."""
    return [
        replace(record, index=each.cell.seed * 1_000_000 + record.index)
        for each in cells
        for record in each.records
    ]


def _only(records: Sequence[Record], those: Sequence[Record]) -> list[Record]:
    """The requests that another policy met too."""
    shared = {record.index for record in those}
    return [record for record in records if record.index in shared]

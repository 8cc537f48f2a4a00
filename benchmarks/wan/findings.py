"""What a run found, as targets and tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from _common import Target
from rich.table import Table

from hybridge.cli.console import table
from hybridge.shared.plan import PlanKind

from .failures import Failure, Outcome
from .matrix import FIXED, ORACLE, OURS, POLICIES, Group, pooled, worst_link
from .policies import LATENCY, LEAST_AGREEMENT
from .records import Measured
from .replays import LOCAL
from .scoring import Interval, Score, in_budget_share

PROMISE, PER_LINK, GAP = 0.999, 0.995, 0.9
QUICKER = 0.4


def targets(measured: Sequence[Measured], found: Sequence[Group]) -> list[Target]:
    """What was promised of ours, and whether it holds."""
    ours = pooled(measured, OURS)
    if not ours:
        return []
    worst, share = worst_link(measured, OURS)
    answered = sum(record.answered for record in ours) / len(ours)
    targets = [
        Target.at_least("answered", 100 * answered, unit="%", bound=100),
        Target.at_least(
            f"in budget, of {len(ours)}", 100 * in_budget_share(ours), unit="%", bound=100 * PROMISE
        ),
        Target.at_least(f"in budget over {worst}", 100 * share, unit="%", bound=100 * PER_LINK),
        Target.at_most(
            "cells in which a rival agrees more often, beyond its interval",
            _lost(found, lambda each: each.below_zero),
            unit="cells",
            bound=0,
        ),
        Target.at_most(
            "cells in which a rival agrees more often at all",
            _lost(found, lambda each: each.value < 0),
            unit="cells",
            bound=0,
        ),
    ]
    closed = [group.gap_closed for group in found if group.gap_closed is not None]
    if closed:
        least = min(closed, key=lambda each: each.value)
        held = sum(each.value >= GAP for each in closed)
        targets.append(
            Target.at_least(
                f"way from local to the oracle, least of {len(closed)} cells "
                f"[{100 * least.low:.0f}, {100 * least.high:.0f}], {held} of which hold",
                100 * least.value,
                unit="%",
                bound=100 * GAP,
            )
        )
    return targets


def quick_targets(found: Sequence[Group]) -> list[Target]:
    """What being told to be quick saves, where it was measured.

    The rival is the quickest of those that ask the cloud only and agree as often as was demanded.
    """
    targets = []
    for group in found:
        quick = group.scores.get(LATENCY)
        clouds = [each for policy, each in group.scores.items() if policy.startswith("cloud-")]
        sufficient = [each for each in clouds if each.agreement >= LEAST_AGREEMENT]
        if quick is None or not clouds:
            continue
        rival = min(sufficient or clouds, key=lambda each: each.mean_ms)
        where = f"{group.link}, {group.budget_ms:g} ms, told to be quick"
        targets += [
            Target.at_least(
                f"{where}: mean response below cloud only",
                100 * (1 - quick.mean_ms / rival.mean_ms),
                unit="%",
                bound=100 * QUICKER,
            ),
            Target.at_least(
                f"{where}: agreement", 100 * quick.agreement, unit="%", bound=100 * LEAST_AGREEMENT
            ),
        ]
    return targets


def _lost(found: Sequence[Group], to: Callable[[Interval], bool]) -> int:
    """In how many cells ours lost to a rival."""
    return sum(
        any(
            to(each)
            for policy, each in group.against.items()
            if policy != ORACLE and not policy.startswith(OURS)
        )
        for group in found
    )


def failure_targets(outcomes: Mapping[Failure, Outcome]) -> list[Target]:
    """What no failure may cost."""
    return [
        Target.at_most(f"{failure}: requests {what}", count, unit="requests", bound=0)
        for failure, each in outcomes.items()
        for what, count in (
            ("lost", each.lost),
            ("shown twice", each.shown_twice),
            ("late", each.late),
        )
    ]


def matrix_table(found: Sequence[Group]) -> Table:
    """A row per link, budget and policy."""
    columns = ("link", "budget ms", "policy", "in budget", "agreement", "ours minus it, points",
               "p50 ms", "p99 ms", "bytes")  # fmt: skip
    rows = [
        (
            group.link,
            f"{group.budget_ms:g}",
            policy,
            f"{each.in_budget:.2%}",
            f"{each.agreement:.1%}",
            _points(group, policy),
            f"{each.p50_ms:.0f}",
            f"{each.p99_ms:.0f}",
            f"{each.sent_bytes:.0f}",
        )
        for group in found
        for policy, each in group.scores.items()
    ]
    return table("answered in time, and as the large model says", columns, rows)


def cell_table(found: Sequence[Group]) -> Table:
    """A row per link and budget; of the fixed splits the one that agreed most often."""
    rivals = [policy for policy in POLICIES if policy not in (OURS, LOCAL)]
    columns = ("link", "budget ms", LOCAL, ORACLE, OURS, *rivals, "best fixed split",
               "gap closed", "in budget")  # fmt: skip
    rows = [
        (
            group.link,
            f"{group.budget_ms:g}",
            *(_agreed(group.scores.get(policy)) for policy in (LOCAL, ORACLE, OURS, *rivals)),
            _best_split(group),
            _closed(group.gap_closed),
            f"{group.scores[OURS].in_budget:.2%}" if OURS in group.scores else "",
        )
        for group in found
    ]
    return table("answered in time as the large model says", columns, rows)


def _agreed(score: Score | None) -> str:
    return "" if score is None else f"{score.agreement:.1%}"


def _best_split(group: Group) -> str:
    kind = f"{FIXED}{PlanKind.SPLIT}:"
    splits = [each for policy, each in group.scores.items() if policy.startswith(kind)]
    return _agreed(max(splits, key=lambda each: each.agreement, default=None))


def _closed(each: Interval | None) -> str:
    if each is None:
        return "no gap"
    return f"{100 * each.value:.0f} % [{100 * each.low:.0f}, {100 * each.high:.0f}]"


def _points(group: Group, policy: str) -> str:
    if policy not in group.against:
        return ""
    each = group.against[policy]
    return f"{100 * each.value:+.1f} [{100 * each.low:+.1f}, {100 * each.high:+.1f}]"


def failure_table(outcomes: Mapping[Failure, Outcome]) -> Table:
    """A row per kind of failure."""
    columns = ("failure", "times", "in mid-request", "device answered", "requests",
               "final followed", "lost", "shown twice", "late")  # fmt: skip
    rows = [
        (str(failure), *(str(value) for value in asdict(each).values()))
        for failure, each in outcomes.items()
    ]
    return table("failures", columns, rows)

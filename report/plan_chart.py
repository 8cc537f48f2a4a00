"""The chart of plans: how often each was taken, per condition and budget."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..shared.manifest import PlanRow
from ..shared.plan import PlanKind
from .run import Group, colour_of, with_cloud
from .steps import kind_of
from .svg import column
from .words import NOTHING, count_words, ms_words, rate_words

NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class PlanLine:
    """A plan and its column per group."""

    plan: str
    colour: str
    cells: list[Markup]


@dataclass(frozen=True, slots=True)
class PlanChart:
    """Plans down, conditions and their budgets across, below them what the table promises.

    `starts` are the places at which a condition's first budget stands.
    """

    title: str
    conditions: dict[str, list[str]]
    starts: frozenset[int]
    lines: list[PlanLine]
    agreement: list[str]


def plan_chart(groups: Sequence[Group], table: Sequence[PlanRow]) -> PlanChart:
    """One line per plan that was taken, and one for requests without an answer."""
    rows = {row.plan: row for row in table}
    taken = {answer.plan for group in groups for answer in group.given}
    plans = sorted(taken, key=lambda plan: (_rank(plan), _bytes(rows.get(plan)), plan))
    if any(len(group.given) < len(group.requests) for group in groups):
        plans.append(NO_ANSWER)
    conditions: dict[str, list[str]] = {}
    starts = set()
    for place, group in enumerate(groups):
        if group.condition not in conditions:
            starts.add(place)
        conditions.setdefault(group.condition, []).append(ms_words(group.budget_ms))
    return PlanChart(
        title=_title(groups, len(taken)),
        conditions=conditions,
        starts=frozenset(starts),
        lines=[
            PlanLine(plan, colour_of(plan), [_cell(plan, group) for group in groups])
            for plan in plans
        ],
        agreement=[_agreement(group, rows) for group in groups],
    )


def _cell(plan: str, group: Group) -> Markup:
    if plan == NO_ANSWER:
        count = len(group.requests) - len(group.given)
    else:
        count = sum(answer.plan == plan for answer in group.given)
    where = f"{group.condition}, {ms_words(group.budget_ms)} ms"
    title = f"{plan}: {count} of {len(group.requests)} ({where})"
    return column(count, of=len(group.requests), colour=colour_of(plan), title=title)


def _agreement(group: Group, rows: dict[str, PlanRow]) -> str:
    """The table's mean agreement of the plans taken; a dash if it does not hold them all."""
    found = [rows[answer.plan].agreement.value for answer in group.given if answer.plan in rows]
    if not found or len(found) < len(group.given):
        return NOTHING
    return rate_words(sum(found) / len(found)).rstrip("%\u00a0")


def _rank(plan: str) -> int:
    order = [PlanKind.LOCAL, PlanKind.SPLIT, PlanKind.CLOUD, None]
    return order.index(kind_of(plan))


def _bytes(row: PlanRow | None) -> int:
    return row.bytes_p50 if row else 0


def _title(groups: Sequence[Group], plans: int) -> str:
    answers = [answer for group in groups for answer in group.given]
    if not answers:
        return "No plan gave an answer"
    remote = sum(with_cloud(answer) for answer in answers)
    if not remote:
        return f"The cloud took part in none of {count_words(len(answers), 'answer')}"
    return (
        f"{count_words(plans, 'plan')} taken: the cloud took part in "
        f"{remote:,} of {count_words(len(answers), 'answer')}"
    )

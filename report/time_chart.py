"""The chart of time by step: a bar of means per condition and budget, the budget as its mark."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..client import Answer
from .run import Group, with_cloud
from .steps import Breakdown, Step, breakdown, mean_breakdown, milliseconds
from .svg import Part, axis, bar, nice_ticks
from .words import SPACE, ms_words, share_words

MS = f"{SPACE}ms"


@dataclass(frozen=True, slots=True)
class TimeRow:
    """One condition's bar, with the mean and the slowest time in words."""

    condition: str
    mean: str
    slowest: str
    drawing: Markup


@dataclass(frozen=True, slots=True)
class TimePanel:
    """The conditions under one budget, on one scale."""

    budget: str
    rows: list[TimeRow]
    axis: Markup


@dataclass(frozen=True, slots=True)
class TimeChart:
    """A panel per budget."""

    title: str
    panels: list[TimePanel]
    has_beside: bool


def time_chart(groups: Sequence[Group]) -> TimeChart:
    """Bars for every group that has an answer."""
    answered = [group for group in groups if group.given]
    answers = [each for group in answered for each in group.given]
    budgets_ms = sorted({group.budget_ms for group in answered})
    return TimeChart(
        title=_title(answers),
        panels=[
            _panel(budget_ms, [group for group in answered if group.budget_ms == budget_ms])
            for budget_ms in budgets_ms
        ],
        has_beside=any(breakdown(each).beside_ms for each in answers),
    )


def answer_bar(answer: Answer, budget_ms: float) -> Markup:
    """One answer's bar, on a scale on which its budget is at the same place as everyone's."""
    budget_ms = milliseconds(budget_ms)
    scale = max(1.04 * budget_ms, milliseconds(answer.total_ms)) or 1.0
    described = f"{ms_words(answer.total_ms)} of {ms_words(budget_ms)} ms"
    return _bar(breakdown(answer), scale=scale, budget_ms=budget_ms, described=described)


def _panel(budget_ms: float, groups: Sequence[Group]) -> TimePanel:
    longest_ms = [milliseconds(each.total_ms) for group in groups for each in group.given]
    scale = 1.03 * max(milliseconds(budget_ms), *longest_ms) or 1.0
    ticks = nice_ticks(scale)
    return TimePanel(
        budget=ms_words(budget_ms) + MS,
        rows=[_row(group, scale=scale, ticks=ticks) for group in groups],
        axis=axis(ticks, scale=scale, unit="ms"),
    )


def _row(group: Group, *, scale: float, ticks: Sequence[float]) -> TimeRow:
    spent_ms = [milliseconds(each.total_ms) for each in group.given]
    mean_ms, slowest_ms = sum(spent_ms) / len(spent_ms), max(spent_ms)
    drawing = _bar(
        mean_breakdown([breakdown(each) for each in group.given]),
        scale=scale,
        budget_ms=group.budget_ms,
        slowest_ms=slowest_ms,
        ticks=ticks,
        described=f"{group.condition}, budget {ms_words(group.budget_ms)} ms: "
        f"mean {ms_words(mean_ms)} ms, slowest {ms_words(slowest_ms)} ms",
    )
    return TimeRow(
        condition=group.condition,
        mean=ms_words(mean_ms) + MS,
        slowest=ms_words(slowest_ms) + MS,
        drawing=drawing,
    )


def _bar(
    times: Breakdown,
    *,
    scale: float,
    budget_ms: float,
    described: str,
    slowest_ms: float | None = None,
    ticks: Sequence[float] = (),
) -> Markup:
    beneath = None
    if times.beside_ms:
        beneath = Part(
            Step.LIGHT,
            times.beside_ms,
            f"light model, in the network's wait: {ms_words(times.beside_ms)} ms",
        )
    return bar(
        [_part(step, ms, whole=slowest_ms is not None) for step, ms in times.steps_ms.items()],
        scale=scale,
        height_px=34 if slowest_ms is not None else 22,
        described=described,
        mark=budget_ms,
        mark_title=f"budget: {ms_words(budget_ms)} ms",
        dot=slowest_ms,
        dot_title=f"slowest: {ms_words(slowest_ms or 0)} ms",
        beneath=beneath,
        beneath_ends=Step.NETWORK,
        ticks=ticks,
    )


def _part(step: Step, ms: float, *, whole: bool) -> Part:
    """The part of a step; `whole`: with its name written out where there is room."""
    figure = ms_words(ms)
    labels = (f"{step.words} {figure}", figure) if whole else (figure,)
    return Part(step, ms, f"{step.words}: {figure} ms", labels)


def _title(answers: Sequence[Answer]) -> str:
    remote = [answer for answer in answers if with_cloud(answer)]
    if not answers:
        return "No answer came"
    if not remote:
        return "Every answer is the device's own: no time went to network or cloud"
    spent = mean_breakdown([breakdown(answer) for answer in remote])
    most = max(spent.steps_ms, key=spent.share_of, default=Step.REST)
    share = share_words(round(1000 * spent.share_of(most)), 1000)
    return f"Where the cloud answers, most of the time is {most.words}: {share}"

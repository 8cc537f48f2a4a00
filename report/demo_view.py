"""What the demo's page shows, worked out from the run before the template sees it."""

import base64
from collections import Counter
from dataclasses import dataclass

from markupsafe import Markup

from ..client import Answer
from ..devices.probe import Device
from .plan_chart import PlanChart, plan_chart
from .plan_table import PlanTable, plan_table
from .run import DemoAnswer, DemoRun, colour_of, groups, with_cloud
from .steps import Step, breakdown
from .time_chart import MS, TimeChart, answer_bar, time_chart
from .words import bytes_words, count_words, ms_words, rate_words, share_words


@dataclass(frozen=True, slots=True)
class Figure:
    """A headline figure: `good` is None where there is nothing to judge."""

    value: str
    name: str
    remark: str
    good: bool | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One request: what came, how, in which time; `label` is empty where nothing came."""

    budget: str
    label: str
    confidence: str
    plan: str
    colour: str
    bar: Markup
    time: str
    sent: str
    notes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Card:
    """A picture and its answers under one condition."""

    picture: str
    symbol: str
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class Section:
    """A condition."""

    name: str
    anchor: str
    link: str
    summary: str
    cards: list[Card]


@dataclass(frozen=True, slots=True)
class DemoView:
    """The page."""

    headline: str
    figures: list[Figure]
    facts: list[tuple[str, str]]
    steps: list[tuple[str, str]]
    symbols: dict[str, str]
    plans: PlanChart
    times: TimeChart
    table: PlanTable
    sections: list[Section]


def demo_view(run: DemoRun) -> DemoView:
    """The page's content; every answer of the run is in one of its cells."""
    thumbnails = dict.fromkeys(each.thumbnail for each in run.answers if each.thumbnail)
    names = {thumbnail: f"picture-{i}" for i, thumbnail in enumerate(thumbnails)}
    grouped = groups(run.answers)
    taken = Counter(answer.plan for answer in run.given)
    seen = {step for answer in run.given for step in breakdown(answer).steps_ms}
    if any(breakdown(answer).beside_ms for answer in run.given):
        seen.add(Step.LIGHT)
    return DemoView(
        headline=_headline(run),
        figures=_figures(run),
        facts=_facts(run),
        steps=[(step.value, step.words) for step in Step if step in seen],
        symbols={name: base64.b64encode(image).decode() for image, name in names.items()},
        plans=plan_chart(grouped, run.table),
        times=time_chart(grouped),
        table=plan_table(run.table, taken),
        sections=[
            _section(run, condition, f"condition-{position}", names)
            for position, condition in enumerate(run.conditions)
        ],
    )


def _headline(run: DemoRun) -> str:
    asked, given = len(run.answers), run.given
    within = sum(answer.within_budget for answer in given)
    late, missing = len(given) - within, asked - len(given)
    if not asked:
        return "No request was made"
    if within == asked:
        return f"{count_words(asked, 'request')}, each answered within its budget"
    words = f"{within:,} of {count_words(asked, 'request')} answered within budget"
    words += f", {late:,} late" if late else ""
    return words + (f", {missing:,} not at all" if missing else "")


def _figures(run: DemoRun) -> list[Figure]:
    given, asked = run.given, len(run.answers)
    within = sum(answer.within_budget for answer in given)
    remote = sum(with_cloud(answer) for answer in given)
    used = [each.total_ms / each.budget_ms for each in given if each.budget_ms > 0]
    pictures = len({each.picture for each in run.answers})
    provisional = sum(answer.provisional for answer in given)
    sent = sum(answer.sent_bytes for answer in given)
    return [
        Figure(f"{len(given):,}", "answers", f"to {count_words(pictures, 'picture')}"),
        Figure(
            share_words(within, asked),
            "within budget",
            f"the slowest used {rate_words(max(used))} of its budget" if used else "none came",
            within == asked,
        ),
        Figure(
            f"{asked - len(given):,}",
            "unanswered",
            f"of {count_words(asked, 'request')}",
            asked == len(given),
        ),
        Figure(
            f"{len({answer.plan for answer in given}):,}",
            "plans used",
            f"of {len(run.table):,} in the bundle",
        ),
        Figure(
            f"{remote:,}",
            "with the cloud",
            f"{len(given) - remote:,} by the device, {provisional:,} of them provisional",
        ),
        Figure(bytes_words(sent), "sent", f"{bytes_words(sent / max(len(given), 1))} per answer"),
    ]


def _facts(run: DemoRun) -> list[tuple[str, str]]:
    facts = [("Bundle", f"{run.bundle}, version {run.version}"), ("Device", _device(run.device))]
    links = [f"{name}: {_link(run, name)}" for name in run.links]
    return facts + ([("Links", "; ".join(links))] if links else [])


def _device(device: Device) -> str:
    return (
        f"{device.processor}, {count_words(device.cores, 'core')}, "
        f"{device.memory_bytes / 2**30:.0f} GiB, {device.system}, {device.runtime}"
    )


def _link(run: DemoRun, condition: str) -> str:
    if condition not in run.links:
        return ""
    rtt_ms, mbps = run.links[condition]
    return f"{rtt_ms:g}{MS} RTT, {mbps:g} Mbit/s"


def _section(run: DemoRun, condition: str, anchor: str, names: dict[bytes, str]) -> Section:
    requests = run.under(condition)
    given = [each.answer for each in requests if each.answer is not None]
    within = sum(answer.within_budget for answer in given)
    remote = sum(with_cloud(answer) for answer in given)
    sent = bytes_words(sum(answer.sent_bytes for answer in given))
    pictures: dict[tuple[str, bytes], list[DemoAnswer]] = {}
    for each in sorted(requests, key=lambda each: each.budget_ms):
        pictures.setdefault((each.picture, each.thumbnail), []).append(each)
    return Section(
        name=condition,
        anchor=anchor,
        link=_link(run, condition),
        summary=f"{within:,} of {count_words(len(requests), 'request')} answered within budget, "
        f"{remote:,} with the cloud, {sent} sent",
        cards=[
            Card(picture, names.get(thumbnail, ""), [_cell(each) for each in asked])
            for (picture, thumbnail), asked in pictures.items()
        ],
    )


def _cell(request: DemoAnswer) -> Cell:
    answer, budget = request.answer, ms_words(request.budget_ms) + MS
    if answer is None:
        notes = (("bad", request.fault or "no answer"),)
        return Cell(budget, "", "", "", "rest", Markup(""), "", "", notes)
    return Cell(
        budget=budget,
        label=answer.label if answer.labels else "no label",
        confidence=rate_words(answer.confidence),
        plan=answer.plan,
        colour=colour_of(answer.plan),
        bar=answer_bar(answer, request.budget_ms),
        time=ms_words(answer.total_ms) + MS,
        sent=f"{bytes_words(answer.sent_bytes)} sent" if answer.sent_bytes else "nothing sent",
        notes=_notes(answer),
    )


def _notes(answer: Answer) -> tuple[tuple[str, str], ...]:
    """What a reader should know, each with how bad it is."""
    notes = []
    if not answer.within_budget:
        notes.append(("bad", "late"))
    if answer.provisional:
        notes.append(("warn", "provisional"))
    if answer.fallback:
        notes.append(("warn", answer.fallback))
    return tuple(notes)

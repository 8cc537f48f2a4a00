"""What the page shows, worked out before the template sees it."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ...shared.plan import PlanKind
from ..words import NOTHING, SPACE, bytes_words, count_words, ms_words, rate_words
from .blocks import Block, Chain, blocks
from .charts import bytes_chart, cut_chart, time_chart
from .clouds import cloud_part
from .drawing import lane_cell, lane_width, strip
from .facts import CutFacts, Inspection, PlanFacts
from .guarantee import guarantee
from .lanes import width
from .machines import Machine, cloud_of
from .tables import (
    Grid,
    count_of,
    layers,
    machines,
    models,
    parts,
    quantization,
    rate,
    shape_words,
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A headline figure."""

    value: str
    name: str
    remark: str


@dataclass(frozen=True, slots=True)
class RowView:
    """One chain of operators, and the cuts that were not kept behind it."""

    lanes: Markup
    words: str
    shape: str
    share: str
    dropped: list[str]


@dataclass(frozen=True, slots=True)
class CutView:
    """A cut that was kept; `heads`: precision, the key of its time, its time here."""

    facts: CutFacts
    shape: str
    raw: str
    sent: str
    agreement: str
    tail: str
    heads: list[tuple[str, str, str]]
    plans: list[PlanFacts]
    error: str


@dataclass(frozen=True, slots=True)
class BlockView:
    """What lies before a cut."""

    title: str
    census: str
    share: float
    work: str
    parameters: str
    strip: Markup
    rows: list[RowView]
    lanes_px: int
    dropped: int
    cut: CutView | None


@dataclass(frozen=True, slots=True)
class InspectView:
    """The page."""

    title: str
    lead: str
    figures: list[Figure]
    facts: list[tuple[str, str]]
    model_title: str
    blocks: list[BlockView]
    cut_chart: Markup | None
    bytes_chart: Markup | None
    time_charts: list[tuple[Machine, Markup]]
    plans: tuple[PlanFacts, ...]
    front_title: str
    measured_on: str
    guarantee: Grid
    models: Grid
    parts: Grid
    cloud_part: Grid
    layers: Grid
    quantization: Grid
    machines: Grid
    dropped: list[CutFacts]
    provenance: list[tuple[str, str]]


def inspect_view(
    report: Inspection, *, machine: Machine | None, colours: dict[str, str]
) -> InspectView:
    """The page's content."""
    manifest = report.bundle.manifest
    charts = [(each, time_chart(report, each, colours)) for each in report.machines]
    return InspectView(
        title=f"{manifest.name} {manifest.version}",
        lead=_lead(report),
        figures=_figures(report),
        facts=_facts(report, machine),
        model_title=_model_title(report),
        blocks=_blocks(report, machine),
        cut_chart=cut_chart(report),
        bytes_chart=bytes_chart(report, colours),
        time_charts=[(each, chart) for each, chart in charts if chart is not None],
        plans=report.plans,
        front_title=_front_title(report),
        measured_on=report.measured_on,
        guarantee=guarantee(report),
        models=models(report, machine),
        parts=parts(report),
        cloud_part=cloud_part(report),
        layers=layers(report),
        quantization=quantization(report),
        machines=machines(report),
        dropped=[cut for cut in report.cuts if not cut.kept],
        provenance=sorted(manifest.provenance.items()),
    )


def _lead(report: Inspection) -> str:
    splits = [each for each in report.plans if each.plan.kind is PlanKind.SPLIT]
    pictures = [each for each in report.plans if each.plan.kind is PlanKind.CLOUD]
    used = len({each.plan.cut for each in splits})
    words = f"{count_words(len(splits), 'split')} at {count_words(used, 'cut')}" if splits else ""
    ways = ["the device alone", words, f"{count_words(len(pictures), 'way')} to send the picture"]
    return "Ways to answer: " + ", ".join(way for way in ways if way) + "."


def _figures(report: Inspection) -> list[Figure]:
    local = next(each for each in report.plans if each.plan.kind is PlanKind.LOCAL)
    splits = [each for each in report.plans if each.plan.kind is PlanKind.SPLIT]
    figures = [
        Figure(
            rate_words(local.row.agreement.value, digits=1),
            "device alone",
            f"agrees with the large model, ±{SPACE}{100 * local.row.agreement.standard_error:.1f}",
        )
    ]
    if splits:
        best = max(splits, key=lambda each: (each.row.agreement.value, -each.row.bytes_p50))
        figures.append(
            Figure(
                rate_words(best.row.agreement.value, digits=1),
                "best split",
                f"{best.code}, {bytes_words(best.row.bytes_p50)}",
            )
        )
    kept = len(report.kept_cuts)
    recorded = f"of {len(report.cuts):,} recorded" if report.build.cuts else "in the bundle"
    figures += [
        Figure(f"{kept:,}", "cuts kept" if kept != 1 else "cut kept", recorded),
        Figure(f"{len(report.plans):,}", "plans", f"on {_samples(report)}"),
        Figure(bytes_words(report.total_bytes), "bundle", _of_that(report)),
    ]
    return figures


def _of_that(report: Inspection) -> str:
    manifest = report.bundle.manifest
    light, weights = manifest.light.blob.bytes, manifest.large.weights.bytes
    return f"light model {bytes_words(light)}, large {bytes_words(weights)}"


def _samples(report: Inspection) -> str:
    return count_words(max(each.row.agreement.samples for each in report.plans), "picture")


def _facts(report: Inspection, machine: Machine | None) -> list[tuple[str, str]]:
    manifest = report.bundle.manifest
    facts = [
        ("Bundle", f"{manifest.name}, version {manifest.version}, format {manifest.format}"),
        ("SHA-256", report.bundle.sha256),
        ("Task", f"{manifest.task}, {manifest.classes:,} classes"),
        ("Budget", f"{manifest.default_budget_ms:g} ms where a request brings none"),
    ]
    if report.graph:
        graph = report.graph
        facts.append(
            (
                "Large",
                f"{count_of(graph.multiply_adds)} multiply-adds, "
                f"{count_of(sum(each.parameters for each in graph.operators))} weights, "
                f"{count_words(len(graph.operators), 'operator')}",
            )
        )
    for name, specs in (("Takes", manifest.large.inputs), ("Gives", manifest.large.outputs)):
        if specs:
            facts.append((name, "; ".join(map(str, specs)) + " beside"))
    if machine is None:
        facts.append(("Times", "no machine has a profile yet: hybridge profile makes one"))
    return facts


def _model_title(report: Inspection) -> str:
    kept, recorded = len(report.kept_cuts), len(report.cuts)
    if not kept:
        return "The large model is served whole: no cut was kept"
    places = count_words(kept, "place")
    if recorded > kept:
        return f"The large model may be cut at {places}; {recorded - kept:,} others were dropped"
    return f"The large model may be cut at {places}"


def _front_title(report: Inspection) -> str:
    splits = [each for each in report.plans if each.plan.kind is PlanKind.SPLIT]
    pictures = [each for each in report.plans if each.plan.kind is PlanKind.CLOUD]
    if not splits or not pictures:
        return "What each plan gives and costs"
    best = max(each.row.agreement.value for each in splits)
    few = min(each.row.bytes_p50 for each in splits if each.row.agreement.value == best)
    rivals = [each.row.bytes_p50 for each in pictures if each.row.agreement.value >= best]
    if not rivals:
        return f"No picture codec reaches the {rate_words(best, digits=1)} of the best split"
    return (
        f"For {rate_words(best, digits=1)} agreement a split sends {bytes_words(few)}, "
        f"a picture {bytes_words(min(rivals))}"
    )


def _blocks(report: Inspection, machine: Machine | None) -> list[BlockView]:
    if report.graph is None:
        return []
    kept = {cut.name: cut for cut in report.kept_cuts}
    dropped: dict[str, list[CutFacts]] = {}
    for cut in report.cuts:
        if not cut.kept and cut.tensors:
            dropped.setdefault(cut.tensors[-1], []).append(cut)
    found = blocks(
        report.graph, [(cut.name, cut.tensors) for cut in kept.values()], marked=dropped.keys()
    )
    most = max(len(block.chains) for block in found)
    before = "the picture"
    views = []
    for block in found:
        at_end = kept.get(block.cut)
        after = at_end.name if at_end is not None else "the answer"
        views.append(_block(report, block, f"{before} to {after}", most, dropped, at_end, machine))
        before = after
    return views


def _block(
    report: Inspection,
    block: Block,
    title: str,
    most: int,
    dropped: dict[str, list[CutFacts]],
    cut: CutFacts | None,
    machine: Machine | None,
) -> BlockView:
    assert report.graph is not None
    total = report.graph.multiply_adds or 1
    lanes = width([chain.row for chain in block.chains])
    rows = [_row(chain, lanes, total, dropped) for chain in block.chains]
    return BlockView(
        title=title,
        census=block.census,
        share=block.work,
        work=rate_words(block.work) if block.work >= 0.005 or not block.work else f"<1{SPACE}%",
        parameters=f"{count_of(block.parameters)} weights",
        strip=strip(block, most_rows=most),
        rows=rows,
        lanes_px=lane_width(lanes),
        dropped=sum(len(row.dropped) for row in rows),
        cut=_cut(report, cut, machine) if cut else None,
    )


def _row(chain: Chain, lanes: int, total: int, dropped: dict[str, list[CutFacts]]) -> RowView:
    work = sum(operator.multiply_adds for operator in chain.operators) / total
    notes = [
        f"{cut.name}, {bytes_words(cut.elements)} in int8: {cut.fate}"
        for name in sorted(chain.writes)
        for cut in dropped.get(name, [])
    ]
    return RowView(
        lanes=lane_cell(chain.row, lanes=lanes, work=work),
        words=chain.words,
        shape=shape_words([chain.shape]),
        share=rate_words(work, digits=1) if work >= 0.0005 else "",
        dropped=notes,
    )


def _cut(report: Inspection, cut: CutFacts, machine: Machine | None) -> CutView:
    plans = report.plans_at(cut.name)
    sizes = [each.row.bytes_p50 for each in plans]
    cloud = cloud_of(report.machines)
    tail_ms = cloud.tail_ms(cut.name) if cloud else float("inf")
    best = max((each.row.agreement for each in plans), key=lambda r: r.value, default=None)
    return CutView(
        facts=cut,
        shape=shape_words(cut.shapes),
        raw=bytes_words(cut.elements),
        sent=_range(sizes),
        agreement=rate(best),
        tail=f"{ms_words(tail_ms)}{SPACE}ms" if tail_ms < float("inf") else NOTHING,
        heads=[
            (head, f"{cut.name}/{head}", _head_words(report, cut, head, machine))
            for head in cut.heads
        ],
        plans=plans,
        error=f"{cut.error:.0e}" if cut.error is not None else "",
    )


def _head_words(report: Inspection, cut: CutFacts, head: str, machine: Machine | None) -> str:
    ms = report.head_ms(machine, cut, head) if machine else float("inf")
    if ms == float("inf") or machine is None:
        return NOTHING
    return f"{ms_words(ms)}{SPACE}ms" + ("" if machine.origin == "measured" else f"{SPACE}est.")


def _range(sizes: Sequence[int]) -> str:
    if not sizes:
        return NOTHING
    few, many = bytes_words(min(sizes)), bytes_words(max(sizes))
    return few if few == many else f"{few} to {many}"

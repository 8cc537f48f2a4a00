"""The cloud's part in every precision it was built in: whole model and tails, before and after."""

from ...devices.profile import tail_stage
from ...shared.manifest import Precision, Runtime, Variant
from ...shared.plan import PlanKind
from ..words import NOTHING, SPACE, bytes_words, ms_words
from .facts import Inspection
from .machines import cloud_of
from .tables import Grid, Row, median_ms, rate


def cloud_part(report: Inspection) -> Grid:
    """Size, time, agreement and accuracy; float32 first, then what it became.

    Times are medians of processor time, on one thread of the machine that stands for the cloud;
    rates are those of the part's plan that agrees best in float32.
    """
    large = report.bundle.manifest.large
    columns = (
        "part", "precision", "runtime", "size", "ms", "plan", "agreement", "accuracy",
    )  # fmt: skip
    rows = [
        _row(report, cut, precision, large.variant(precision))
        for cut in ("", *(cut.name for cut in large.cuts))
        for precision in large.precisions
    ]
    grid = Grid("The cloud's part in each precision", columns, rows if large.variants else ())
    return grid.without_empty()


def _row(report: Inspection, cut: str, precision: Precision, variant: Variant) -> Row:
    cloud = cloud_of(report.machines)
    time = cloud.profile.stages.get(tail_stage(cut, precision)) if cloud else None
    plans = [
        each.row
        for each in report.plans
        if each.plan.kind is not PlanKind.LOCAL and each.plan.cut == cut
    ]
    best = max(plans, key=lambda row: row.agreement.value, default=None)
    rates = best.rates(precision) if best else None
    graph = variant.tails[cut] if cut else variant.whole
    size = graph.bytes if cut else graph.bytes + variant.weights.bytes
    converted = variant.runtime is Runtime.TORCH
    return (
        cut or "whole",
        str(precision),
        str(variant.runtime),
        f"float32's,{SPACE}converted" if converted else bytes_words(size),
        ms_words(median_ms(time)) if time else NOTHING,
        best.plan if best else NOTHING,
        rate(rates.agreement) if rates else NOTHING,
        rate(rates.accuracy) if rates else NOTHING,
    )

"""The charts of a bundle: bytes and device time against agreement, and where it could be cut."""

from math import isfinite

from markupsafe import Markup

from ...shared.plan import PlanKind
from ..words import bytes_words, ms_words, rate_words
from .facts import Inspection, PlanFacts
from .machines import Machine, device_ms
from .pareto import on_front
from .scatter import Axis, Point, linear, logarithmic, percent, scatter
from .tables import rate, shape_words

_PLAIN = "var(--line-strong)"
_AGREEMENT = "agreement, %"


def bytes_chart(report: Inspection, colours: dict[str, str]) -> Markup | None:
    """What crosses the link against what it gives; None without a remote plan."""
    remote = [each for each in report.plans if each.plan.kind is not PlanKind.LOCAL]
    if not remote:
        return None
    sizes = [float(each.row.bytes_p50) for each in remote]
    local = next(each for each in report.plans if each.plan.kind is PlanKind.LOCAL)
    points = _points(remote, sizes, colours, [f"{bytes_words(size)}" for size in sizes])
    begun = [point for each in remote for point in _begun(each, colours[each.row.plan])]
    sizes += [point.x for point in begun]
    return scatter(
        [*begun, *points],
        x=logarithmic(sizes, name="bytes sent, median", unit="B"),
        y=_agreement(report),
        described="Bytes sent against agreement, a point per remote plan, as in the table; "
        "rings are frames in layers of which only a part has come",
        levels=[(local.row.agreement.value, f"device alone {_value(local)}", "local")],
    )


def time_chart(report: Inspection, machine: Machine, colours: dict[str, str]) -> Markup | None:
    """The device's own time against what it gives; None where nothing was timed."""
    times = dict(
        zip(
            (row.plan for row in report.bundle.manifest.table),
            device_ms(report.bundle.manifest, machine),
            strict=True,
        )
    )
    timed = [each for each in report.plans if isfinite(times[each.row.plan])]
    if not timed:
        return None
    ms = [times[each.row.plan] for each in timed]
    return scatter(
        _points(timed, ms, colours, [f"{ms_words(each)} ms" for each in ms]),
        x=linear(ms, name="time on the device, p95 ms"),
        y=_agreement(report),
        described=f"Time on {machine.name} against agreement, a point per plan; "
        "the table has the figures",
    )


def cut_chart(report: Inspection) -> Markup | None:
    """Where along the model's work it could be cut, and how much crosses there."""
    cuts = [cut for cut in report.cuts if cut.work is not None]
    if not cuts:
        return None
    pixels = report.bundle.manifest.large.pixels.elements
    points, sizes = [], [float(pixels)]
    for cut in cuts:
        assert cut.work is not None
        title = f"{cut.name}, {shape_words(cut.shapes)}: {bytes_words(cut.elements)} in int8, "
        title += f"{rate_words(cut.work)} of the work before it; {cut.fate}"
        sizes.append(float(cut.elements))
        points.append(Point(cut.work, cut.elements, _PLAIN, "", title, hollow=True))
        sent = [each.row.bytes_p50 for each in report.plans_at(cut.name)]
        if sent:
            sizes.append(float(min(sent)))
            title = f"{cut.name}: {bytes_words(min(sent))} sent, by its smallest plan"
            code = cut.name.partition("-")[0]
            points.append(Point(cut.work, min(sent), "var(--split)", code, title))
    pictures = [each for each in report.plans if each.plan.kind is PlanKind.CLOUD]
    smallest = min(pictures, key=lambda each: each.row.bytes_p50, default=None)
    levels = [(float(pixels), f"raw pixels {bytes_words(pixels)}", "cloud")]
    if smallest:
        size = smallest.row.bytes_p50
        sizes.append(float(size))
        words = f"{smallest.code} {smallest.plan.codec} {bytes_words(size)}"
        levels.append((float(size), words, "cloud"))
    down = logarithmic(sizes, name="bytes", unit="B")
    tens = tuple((at / 10, f"{at * 10}") for at in range(0, 11, 2))
    return scatter(
        points,
        x=Axis(-0.02, 1.02, tens, "work of the large model before the cut, %"),
        y=down,
        described="Bytes at each cut against the work before it; the table has the figures",
        levels=levels,
    )


def _points(
    plans: list[PlanFacts], across: list[float], colours: dict[str, str], words: list[str]
) -> list[Point]:
    costs = [(x, -each.row.agreement.value) for x, each in zip(across, plans, strict=True)]
    return [
        Point(
            x=x,
            y=each.row.agreement.value,
            colour=colours[each.row.plan],
            code=each.code if stays else "",
            title=f"{each.code} {each.row.plan}: {rate(each.row.agreement)}, {figure}",
            error=each.row.agreement.standard_error,
            front=stays,
        )
        for each, x, figure, stays in zip(plans, across, words, on_front(costs), strict=True)
    ]


def _begun(plan: PlanFacts, colour: str) -> list[Point]:
    """A frame in layers after each but the last."""
    in_all = len(plan.row.prefixes) + 1
    return [
        Point(
            x=float(each.bytes_p50),
            y=each.agreement.value,
            colour=colour,
            code="",
            title=f"{plan.code} {plan.row.plan} after {each.layers} of {in_all} layers: "
            f"{rate(each.agreement)}, {bytes_words(each.bytes_p50)}",
            error=each.agreement.standard_error,
            hollow=True,
        )
        for each in plan.row.prefixes
    ]


def _agreement(report: Inspection) -> Axis:
    rates = [each.row.agreement for each in report.plans]
    rates += [part.agreement for each in report.plans for part in each.row.prefixes]
    return percent([each.value - each.standard_error for each in rates], name=_AGREEMENT)


def _value(plan: PlanFacts) -> str:
    return rate_words(plan.row.agreement.value, digits=1)

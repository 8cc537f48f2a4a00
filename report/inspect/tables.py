"""An inspection as tables of words: the same in the terminal and on the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from ...devices.profile import StageTime
from ...shared.manifest import Precision, Quantized, Rate, Runtime, Variant
from ..words import NOTHING, SPACE, bytes_words, ms_words, rate_words
from .facts import CutFacts, Inspection
from .machines import Machine, cloud_of, device_ms
from .pareto import on_front

TIMES = "\u00d7"
Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: what it is about, its columns, its rows."""

    title: str
    columns: Row
    rows: Sequence[Row]

    def without_empty(self) -> "Grid":
        """Without the columns in which no row says anything."""
        kept = [
            at
            for at in range(len(self.columns))
            if not self.rows or any(row[at] not in ("", NOTHING) for row in self.rows)
        ]
        columns, *rows = (tuple(row[at] for at in kept) for row in (self.columns, *self.rows))
        return Grid(self.title, columns, rows)


def models(report: Inspection, machine: Machine | None) -> Grid:
    """The two models: size, pictures, time, and by which route they came to the device."""
    manifest = report.bundle.manifest
    light, large = manifest.light, manifest.large
    ms = report.model_ms(machine) if machine else {}
    cloud = cloud_of(report.machines)
    whole_ms = report.model_ms(cloud)["large"] if cloud else float("inf")
    rows = []
    for name, preprocessing, size, output, time in (
        ("light", light.preprocessing, light.blob.bytes, light.output, ms.get("light")),
        ("large", large.preprocessing, large.weights.bytes, large.output, whole_ms),
    ):
        found = report.build.conversions.get(name)
        rows.append(
            (
                name,
                bytes_words(size),
                f"{preprocessing.spec.size_px}{SPACE}px",
                output.value,
                _time(time),
                found.route if found else NOTHING,
                f"{found.error:.1e} on {found.pictures}" if found else NOTHING,
                _remarks(found.ended_by, found.failed) if found else "",
            )
        )
    columns = ("model", "size", "input", "output", "p95 ms", "route", "error", "remarks")
    return Grid("Models and how they were converted", columns, rows)


def parts(report: Inspection) -> Grid:
    """What the bundle's bytes are."""
    manifest = report.bundle.manifest
    large = manifest.large
    heads = [
        (f"heads, {precision}", blob.bytes) for precision, blob in sorted(large.head_files.items())
    ]
    sizes = [
        ("light model", manifest.light.blob.bytes),
        ("weights of the large model, shared by whole and tails", large.weights.bytes),
        *heads,
        ("graphs of whole and tails", large.whole.bytes + sum(c.tail.bytes for c in large.cuts)),
        *(
            (f"whole and tails, {precision}", each.weights.bytes + _graph_bytes(each))
            for precision, each in sorted(large.variants.items())
            if each.runtime is not Runtime.TORCH  # those are the float32 ones
        ),
    ]
    rest = report.total_bytes - sum(size for _, size in sizes)
    rows = [(name, bytes_words(size), _share(size, report)) for name, size in sizes]
    rows.append(("preprocessing, labels, golden, tables", bytes_words(rest), _share(rest, report)))
    return Grid("What is in it", ("part", "size", "share"), rows)


def cuts(report: Inspection, machine: Machine | None) -> Grid:
    """Every recorded cut, from the input on."""
    cloud = cloud_of(report.machines)
    rows = [_cut(report, cut, machine, cloud) for cut in report.cuts]
    columns = (
        "cut", "shape", "int8 bytes", "sent", "work", "head ms", "float ms", "tail ms",
        "agreement", "error", "fate",
    )  # fmt: skip
    kept = len(report.kept_cuts)
    return Grid(f"Cuts: {kept} kept of {len(report.cuts)} recorded", columns, rows)


def plans(report: Inspection, machine: Machine | None) -> Grid:
    """The measured table, its Pareto front marked."""
    times = (
        dict(zip(_rows(report), device_ms(report.bundle.manifest, machine), strict=True))
        if (machine)
        else {}
    )
    front = front_plans(report, machine)
    others = sorted(report.bundle.manifest.large.variants)
    rows = [
        (
            each.code,
            each.row.plan,
            rate(each.row.agreement),
            *(rate(each.row.rates(precision).agreement) for precision in others),
            rate(each.row.accuracy),
            bytes_words(each.row.bytes_p50) if each.row.bytes_p50 else NOTHING,
            bytes_words(each.row.bytes_p95) if each.row.bytes_p95 else NOTHING,
            _time(times.get(each.row.plan)),
            *([alike(report.gives_away(each))] if report.privacy else []),
            "front" if each.row.plan in front else "",
        )
        for each in report.plans
    ]
    clouds = (f"{precision} cloud" for precision in others)
    columns = (
        "", "plan", "agreement", *clouds, "accuracy", "bytes p50", "p95", "device ms",
        *(["gives away"] if report.privacy else []), "front",
    )  # fmt: skip
    return Grid(
        f"{len(rows)} plans, measured on {report.measured_on}; {len(front)} on the Pareto front",
        columns,
        rows,
    ).without_empty()


def layers(report: Inspection) -> Grid:
    """What frames in layers are worth before they are whole; no rows where there are none."""
    plans = [each for each in report.plans if each.row.prefixes]
    most = max((len(each.row.prefixes) for each in plans), default=0)
    rows = []
    for each in plans:
        known = [(p.bytes_p50, p.agreement) for p in each.row.prefixes]
        cells = [f"{bytes_words(size)}: {rate(agreed)}" for size, agreed in known]
        cells += [NOTHING] * (most - len(cells))
        whole = f"{bytes_words(each.row.bytes_p50)}: {rate(each.row.agreement)}"
        rows.append((each.code, each.row.plan, *cells, whole))
    first = ("the first layer", *(f"the first {count}" for count in range(2, most + 1)))
    columns = ("", "plan", *first[:most], "all")
    return Grid("Frames in layers: bytes that have come, and agreement", columns, rows)


def quantization(report: Inspection) -> Grid:
    """Every way of quantizing that was tried; of what was chosen what it was before, too."""
    builder = cloud_of(report.machines)
    profile = builder.profile.stages if builder else {}
    rows = [_quantized(each, profile) for each in report.build.quantized]
    columns = (
        "part", "precision", "method", "size", "ms", "agreement with float", "accuracy",
        "kept float", "chosen",
    )  # fmt: skip
    return Grid("Quantization: what was tried", columns, rows).without_empty()


def machines(report: Inspection) -> Grid:
    """The profiles beside the bundle."""
    rows = [
        (
            machine.name + (" (this machine)" if machine.here else ""),
            machine.origin,
            machine.profile.device.runtime,
            f"{len(machine.profile.stages)}",
            _time(report.model_ms(machine)["light"]),
            _time(report.model_ms(machine)["large"]),
            machine.key,
        )
        for machine in report.machines
    ]
    columns = ("machine", "times", "runtime", "stages", "light p95 ms", "whole large ms", "key")
    return Grid("Machines with a profile", columns, rows)


def front_plans(report: Inspection, machine: Machine | None) -> set[str]:
    """Plans that no other beats in bytes, agreement and, with a machine, device time there."""
    table = report.bundle.manifest.table
    times = device_ms(report.bundle.manifest, machine) if machine else [0.0] * len(table)
    costs = [
        (row.bytes_p50, -row.agreement.value, ms) for row, ms in zip(table, times, strict=True)
    ]
    return {row.plan for row, stays in zip(table, on_front(costs), strict=True) if stays}


def rate(value: Rate | None) -> str:
    """A rate with its standard error, in percent."""
    if value is None:
        return NOTHING
    words = rate_words(value.value, digits=1).removesuffix("%").rstrip()
    return f"{words} ±{SPACE}{100 * value.standard_error:.1f}{SPACE}%"


def alike(ssim: float | None) -> str:
    """How alike pictures are that were rebuilt."""
    return NOTHING if ssim is None else f"{ssim:.2f}"


def count_of(number: int) -> str:
    r"""A large count in words.

    >>> count_of(17_618_953_216), count_of(2_500_000), count_of(640)
    ('17.6\xa0billion', '2.5\xa0million', '640')
    """
    for words, size in (("billion", 1e9), ("million", 1e6)):
        if number >= size:
            return f"{number / size:.1f}{SPACE}{words}"
    return f"{number:,}"


def shape_words(shapes: Sequence[Sequence[int]]) -> str:
    """Sizes of a cut's tensors, such as `17×17×88 + 1280`."""
    return " + ".join(TIMES.join(map(str, shape)) for shape in shapes)


def smallest_sent(report: Inspection, cut: CutFacts) -> str:
    """The fewest and the most bytes among a cut's plans."""
    sizes = [each.row.bytes_p50 for each in report.plans_at(cut.name)]
    if not sizes:
        return NOTHING
    few, many = bytes_words(min(sizes)), bytes_words(max(sizes))
    return few if few == many else f"{few.removesuffix(f'{SPACE}kB')} to {many}"


def best_agreement(report: Inspection, cut: CutFacts) -> str:
    """Of a cut's plans."""
    found = [each.row.agreement for each in report.plans_at(cut.name)]
    return rate(max(found, key=lambda r: r.value)) if found else NOTHING


def _cut(report: Inspection, cut: CutFacts, machine: Machine | None, cloud: Machine | None) -> Row:
    heads = [report.head_ms(machine, cut, head) if machine else None for head in _PRECISIONS]
    tail_ms = cloud.tail_ms(cut.name) if cloud else None
    return (
        cut.name,
        shape_words(cut.shapes),
        bytes_words(cut.elements),
        smallest_sent(report, cut),
        rate_words(cut.work) if cut.work is not None else NOTHING,
        *(_time(ms) for ms in heads),
        _time(tail_ms),
        best_agreement(report, cut),
        f"{cut.error:.0e}" if cut.error is not None else NOTHING,
        cut.fate,
    )


_PRECISIONS = ("int8", "float32")


def _rows(report: Inspection) -> list[str]:
    return [row.plan for row in report.bundle.manifest.table]


def _remarks(ended_by: str, failed: dict[str, str]) -> str:
    ended = [f"cuts end here: {ended_by}"] if ended_by else []
    return "; ".join([*ended, *(f"{route}: {why}" for route, why in sorted(failed.items()))])


def _graph_bytes(variant: Variant) -> int:
    return variant.whole.bytes + sum(tail.bytes for tail in variant.tails.values())


def _quantized(each: Quantized, stages: Mapping[str, StageTime]) -> Row:
    """Times are those of one thread of the machine that built it."""
    size, accuracy, time = bytes_words(each.bytes), rate(each.accuracy), NOTHING
    if each.chosen:
        if each.float_bytes is not None:
            size = _became(bytes_words(each.float_bytes), size)
        if each.float_accuracy is not None:
            accuracy = _became(f"{100 * each.float_accuracy.value:.1f}", accuracy)
        before = stages.get(f"{each.part}/{Precision.FLOAT32}") or stages.get(each.part)
        after = stages.get(f"{each.part}/{each.precision}")
        if before is not None and after is not None:
            time = _became(ms_words(median_ms(before)), ms_words(median_ms(after)))
    return (
        each.part,
        str(each.precision),
        each.method,
        size,
        time,
        rate(each.agreement),
        accuracy,
        ", ".join(each.kept_float) or NOTHING,
        "chosen" if each.chosen else "",
    )


def median_ms(time: StageTime) -> float:
    """Of processor time, where it is known: the clock of a busy machine compares nothing."""
    return time.cpu_ms or time.p50_ms


def _became(before: str, after: str) -> str:
    return f"{before} \u2192 {after}"


def _share(size: int, report: Inspection) -> str:
    if not report.total_bytes:
        return NOTHING
    share = size / report.total_bytes
    return rate_words(share) if not size or share >= 0.005 else f"<1{SPACE}%"


def _time(ms: float | None) -> str:
    return ms_words(ms) if ms is not None and isfinite(ms) else NOTHING

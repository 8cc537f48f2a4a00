"""The measured table: what each plan gives and costs on pictures kept out of calibration."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...devices.models import DeviceModels
from ...shared.codec import codec_by_name
from ...shared.frame import decode_payload, encode_frame, read_header
from ...shared.manifest import Manifest, PlanRow, Precision, Rate
from ...shared.plan import Plan, PlanKind
from ...shared.tensor import Array
from .cloud_side import CloudSide
from .pictures import PictureSet, read_picture, views


@dataclass
class _Tally:
    """One plan's answers so far; shares are per picture, so that views of one count once."""

    agreed: list[float] = field(default_factory=list)
    correct: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


def candidate_plans(
    manifest: Manifest, *, picture_codecs: Sequence[str], tensor_codecs: Sequence[str]
) -> list[Plan]:
    """Every plan worth measuring: the device alone, whole pictures, each head with each codec."""
    plans = [Plan.local(), *(Plan.cloud(codec) for codec in picture_codecs)]
    for cut in manifest.large.cuts:
        for head in sorted(cut.heads):
            plans.extend(Plan.split(cut.name, head=head, codec=codec) for codec in tensor_codecs)
    return plans


def measure_table(
    models: DeviceModels,
    cloud: CloudSide,
    plans: Sequence[Plan],
    pictures: PictureSet,
    *,
    view_count: int = 1,
    on_picture: Callable[[int, int], None] | None = None,
) -> tuple[PlanRow, ...]:
    """Runs every plan on every picture, through real frames, against the large model's own answer.

    The large model's own answer is that of the whole model on the uncompressed pixels.
    """
    tallies = {plan: _Tally() for plan in plans}
    for done, (file, label) in enumerate(zip(pictures.files, pictures.labels, strict=True)):
        if on_picture is not None:
            on_picture(done, len(pictures))
        _measure_picture(models, cloud, tallies, views(read_picture(file), view_count), label=label)
    return tuple(_row(plan, tally) for plan, tally in tallies.items())


def _measure_picture(
    models: DeviceModels,
    cloud: CloudSide,
    tallies: Mapping[Plan, _Tally],
    pictures: Sequence[Array],
    *,
    label: int | None,
) -> None:
    answers: dict[Plan, list[int]] = {plan: [] for plan in tallies}
    wanted: list[int] = []
    for picture in pictures:
        pixels = models.resize_large(picture)
        wanted.append(cloud.answer(Plan.cloud("raw"), pixels))
        tensors: dict[tuple[str, str], Array] = {}
        for plan, tally in tallies.items():
            if plan.kind is PlanKind.LOCAL:
                light = models.light(models.resize_light(picture))
                answers[plan].append(int(np.argmax(light)))
                tally.sizes.append(0)
                continue
            key = (plan.cut, plan.head)
            if key not in tensors:
                tensors[key] = models.tensor(plan, pixels)
            contract = models.bundle.manifest.contract(plan)
            frame = encode_frame(
                tensors[key], contract=contract, codec=codec_by_name(plan.codec, contract)
            )
            decoded = decode_payload(frame, read_header(frame), contract=contract)
            answers[plan].append(cloud.answer(plan, decoded))
            tally.sizes.append(len(frame))
    for plan, tally in tallies.items():
        given = answers[plan]
        tally.agreed.append(_share(a == b for a, b in zip(given, wanted, strict=True)))
        if label is not None:
            tally.correct.append(_share(answer == label for answer in given))


def _share(hits: Iterable[bool]) -> float:
    return float(np.mean([float(hit) for hit in hits]))


def _row(plan: Plan, tally: _Tally) -> PlanRow:
    p50, p95 = (int(value) for value in np.quantile(tally.sizes, [0.5, 0.95]))
    return PlanRow(
        plan=str(plan),
        agreement=Rate.of(sum(tally.agreed), len(tally.agreed)),
        accuracy=Rate.of(sum(tally.correct), len(tally.correct)) if tally.correct else None,
        bytes_p50=p50,
        bytes_p95=p95,
    )


def pareto(rows: Sequence[PlanRow], *, depth: Mapping[str, float]) -> tuple[PlanRow, ...]:
    """Drops every split that another remote plan beats in device work, bytes and agreement.

    `depth` is the share of the large model that lies before a cut. An int8 head counts as a third
    of a float one: a stand-in for its time, which belongs to machines and not to the bundle.
    """
    placed = [(row, row.parsed()) for row in rows]

    def work(plan: Plan) -> float:
        if plan.kind is not PlanKind.SPLIT:
            return 0.0
        return depth[plan.cut] * (1 / 3 if plan.head == Precision.INT8 else 1.0)

    def beats(a: tuple[PlanRow, Plan], b: tuple[PlanRow, Plan]) -> bool:
        (row, plan), (other, other_plan) = a, b
        ours = (work(plan), row.bytes_p50, -row.agreement.value)
        theirs = (work(other_plan), other.bytes_p50, -other.agreement.value)
        return ours != theirs and all(x <= y for x, y in zip(ours, theirs, strict=True))

    remote = [item for item in placed if item[1].kind is not PlanKind.LOCAL]
    return tuple(
        item[0]
        for item in placed
        if item[1].kind is not PlanKind.SPLIT or not any(beats(rival, item) for rival in remote)
    )

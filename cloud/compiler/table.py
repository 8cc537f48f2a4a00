"""The measured table: what each plan gives and costs on pictures kept out of calibration."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from ...devices.models import DeviceModels, Pixels
from ...shared.answer import Probabilities
from ...shared.arrival import Arrival
from ...shared.calibration import Calibration
from ...shared.codec import Codec, codec_by_name
from ...shared.codec.klt import TABLE
from ...shared.codec.klt_pco import is_transformed
from ...shared.contract import Contract
from ...shared.frame import decode_layers, decode_payload, encode_frame, encode_layers, read_header
from ...shared.manifest import Manifest, PlanRow, Precision, Prefix, Rate, Rates
from ...shared.plan import Plan, PlanKind
from ...shared.side import Tensors, item_bytes
from ...shared.tensor import Array
from .bottleneck import LATENTS
from .cloud_side import CloudSide
from .pictures import PictureSet, read_picture, views
from .progress import Count, Ticks, uncounted
from .side_values import side_values

_INT8_WORK = 1 / 3
"""ResNet-50 takes 40.3 ms in float and 12.4 in int8, EfficientNet-Lite0 5.8 and 2.3."""


LightModel = Callable[[Pixels], Probabilities]
"""Of the light model's pixels the probabilities of its answers."""

_EFFORT = {"kltp": 1, "rans": 1, "layers": 1, "klt": 2}
"""Of 17x17x88 values: 0.5 to 0.9 and 1.4 ms to encode, where `affine4` takes 0.1, `pco-25` 0.3."""


class Measured(msgspec.Struct, frozen=True):
    """The table, and how sure the light model was of each picture.

    `light_in_float` is what it gave before it was quantized, where that was asked for.
    """

    rows: tuple[PlanRow, ...]
    calibration: Calibration
    light_in_float: Rates | None = None


@dataclass
class _Tally:
    """One plan's answers so far; shares are per picture, so that views of one count once.

    By the precision of the cloud's part.
    """

    agreed: dict[Precision, list[float]] = field(default_factory=dict)
    correct: dict[Precision, list[float]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    prefixes: "dict[int, _Tally]" = field(default_factory=dict)
    """The same for what has only so many layers of its frame, if it has several."""

    def of(self, layers: int) -> "_Tally":
        """0 stands for the whole."""
        return self.prefixes.setdefault(layers, _Tally()) if layers else self

    def count(
        self, precision: Precision, given: Sequence[int], wanted: Sequence[int], label: int | None
    ) -> None:
        """Adds a picture: what was answered to its views, and what the large model answers."""
        agreed = _share(a == b for a, b in zip(given, wanted, strict=True))
        self.agreed.setdefault(precision, []).append(agreed)
        if label is not None:
            correct = _share(answer == label for answer in given)
            self.correct.setdefault(precision, []).append(correct)

    @property
    def rates(self) -> dict[Precision, Rates]:
        return {
            precision: Rates(
                agreement=Rate.of(sum(found), len(found)),
                accuracy=_rate(self.correct.get(precision, [])),
            )
            for precision, found in self.agreed.items()
        }

    @property
    def quantiles(self) -> tuple[int, int]:
        p50, p95 = (int(value) for value in np.quantile(self.sizes, [0.5, 0.95]))
        return p50, p95


def candidate_plans(
    manifest: Manifest, *, picture_codecs: Sequence[str], tensor_codecs: Sequence[str]
) -> list[Plan]:
    """Every plan worth measuring: the device alone, whole pictures, each head with each codec.

    Cuts that have no transform have no plans with one. A learned bottleneck has rates of its own,
    whatever `tensor_codecs` says.
    """
    plans = [Plan.local(), *(Plan.cloud(codec) for codec in picture_codecs)]
    for cut in manifest.large.cuts:
        own = [
            codec
            for codec in tensor_codecs
            if not is_transformed(codec) or TABLE in cut.contract.codecs
        ]
        if cut.contract.tensor == LATENTS:
            own = sorted(cut.contract.codecs)
        for head in sorted(cut.heads):
            plans.extend(Plan.split(cut.name, head=head, codec=codec) for codec in own)
    return plans


def measure_table(
    models: DeviceModels,
    cloud: CloudSide,
    plans: Sequence[Plan],
    pictures: PictureSet,
    *,
    further: Mapping[Precision, CloudSide] | None = None,
    light_in_float: LightModel | None = None,
    view_count: int = 1,
    most_pictures: int | None = None,
    count: Count = uncounted,
) -> Measured:
    """Runs every plan on every picture, through real frames, against the large model's own answer.

    The large model's own answer is that of the whole model, in float32, on the uncompressed pixels.
    `further` are clouds of other precisions, which get the same frames. `plans` hold the local one;
    its confidences are of whole pictures only, since views of one picture are no further samples.
    They are taken on every picture, the rows on `most_pictures` of them, evenly over their order.
    `light_in_float` is the light model as it was before it was quantized.
    """
    clouds = {Precision.FLOAT32: cloud, **(further or {})}
    tallies = {plan: _Tally() for plan in plans}
    in_float = _Tally()
    pairs: list[tuple[float, bool]] = []
    in_table = _evenly(len(pictures), most_pictures or len(pictures))
    sides = side_values(pictures, models.bundle.manifest.large.inputs)
    all_pictures = zip(pictures.files, pictures.labels, sides, strict=True)
    for at, (file, label, beside) in enumerate(Ticks(count, len(pictures)).over(all_pictures)):
        picture, tabled = read_picture(file), at in in_table
        shown = views(picture, view_count) if tabled else [picture]
        into = tallies if tabled else {Plan.local(): _Tally()}
        wanted, pair = _measure_picture(models, clouds, into, shown, beside=beside, label=label)
        pairs.append(pair)
        if light_in_float is not None and tabled:
            given = [int(np.argmax(light_in_float(models.resize_light(each)))) for each in shown]
            in_float.count(Precision.FLOAT32, given, wanted, label)
    rows = tuple(_row(plan, tally) for plan, tally in tallies.items())
    return Measured(rows, Calibration.of(pairs), in_float.rates.get(Precision.FLOAT32))


def _evenly(count: int, most: int) -> frozenset[int]:
    """So many positions of `count`, or all."""
    return frozenset(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist())


def _measure_picture(
    models: DeviceModels,
    clouds: Mapping[Precision, CloudSide],
    tallies: Mapping[Plan, _Tally],
    pictures: Sequence[Array],
    *,
    beside: Tensors,
    label: int | None,
) -> tuple[list[int], tuple[float, bool]]:
    """Adds to the tallies; what the large model answers to each view.

    With it the light model's confidence in the first view, and if it agrees there.
    """
    beside_bytes = item_bytes(models.bundle.manifest.large.inputs)
    answers: dict[tuple[Plan, int, Precision], list[int]] = defaultdict(list)
    wanted: list[int] = []
    confidences: list[float] = []
    for picture in pictures:
        pixels = models.resize_large(picture)
        own = clouds[Precision.FLOAT32].answer(Plan.cloud("raw"), pixels, beside)
        wanted.append(own)
        # What loses nothing (raw, PNG) gives the same answer, and the whole model is slow.
        known = {("", pixels.tobytes(), Precision.FLOAT32): own}
        tensors: dict[tuple[str, str], Array] = {}
        for plan, tally in tallies.items():
            if plan.kind is PlanKind.LOCAL:
                light = models.light(models.resize_light(picture))
                answers[plan, 0, Precision.FLOAT32].append(int(np.argmax(light)))
                confidences.append(float(light.max()))
                tally.sizes.append(0)
                continue
            key = (plan.cut, plan.head)
            if key not in tensors:
                tensors[key] = models.tensor(plan, pixels)
            contract = models.bundle.manifest.contract(plan)
            codec = codec_by_name(plan.codec, contract)
            came = received(tensors[key], contract=contract, codec=codec)
            for number, (size, decoded) in enumerate(came, start=1):
                layers = number if number < codec.layer_count else 0
                sent = (plan.cut, decoded.tobytes())
                for precision, cloud in clouds.items():
                    if (*sent, precision) not in known:
                        known[*sent, precision] = cloud.answer(plan, decoded, beside)
                    answers[plan, layers, precision].append(known[*sent, precision])
                tally.of(layers).sizes.append(size + beside_bytes)
    for (plan, layers, precision), given in answers.items():
        tallies[plan].of(layers).count(precision, given, wanted, label)
    agrees = answers[Plan.local(), 0, Precision.FLOAT32][0] == wanted[0]
    return wanted, (confidences[0], agrees)


def received(tensor: Array, *, contract: Contract, codec: Codec) -> Iterator[tuple[int, Array]]:
    """What a cloud makes of a tensor's frame after so many bytes: once, or after each layer."""
    if codec.layer_count == 1:
        frame = encode_frame(tensor, contract=contract, codec=codec)
        yield len(frame), decode_payload(frame, read_header(frame), contract=contract)
        return
    layers = encode_layers(tensor, contract=contract, codec=codec)
    for count in range(1, len(layers) + 1):
        came = Arrival(b"".join(layers[:count]))
        yield came.came_bytes, decode_layers(came.layers, came.header, contract=contract)


def _share(hits: Iterable[bool]) -> float:
    return float(np.mean([float(hit) for hit in hits]))


def _row(plan: Plan, tally: _Tally) -> PlanRow:
    p50, p95 = tally.quantiles
    rates = tally.rates
    own = rates.pop(Precision.FLOAT32)
    return PlanRow(
        plan=str(plan),
        agreement=own.agreement,
        accuracy=own.accuracy,
        bytes_p50=p50,
        bytes_p95=p95,
        variants=rates,
        prefixes=tuple(_prefix(layers, part) for layers, part in tally.prefixes.items()),
    )


def _prefix(layers: int, tally: _Tally) -> Prefix:
    p50, p95 = tally.quantiles
    rates = {precision: each.agreement for precision, each in tally.rates.items()}
    own = rates.pop(Precision.FLOAT32)
    return Prefix(layers=layers, agreement=own, bytes_p50=p50, bytes_p95=p95, variants=rates)


def _rate(shares: Sequence[float]) -> Rate | None:
    return Rate.of(sum(shares), len(shares)) if shares else None


def pareto(rows: Sequence[PlanRow], *, work: Mapping[str, float]) -> tuple[PlanRow, ...]:
    """Drops every split that another remote plan beats in device work, bytes and agreement.

    One in layers, which is worth something before it has come, only another such plan can beat,
    and one with a quick codec only a plan whose codec is as quick.

    `work` is the share of the large model's multiply-adds before each cut. An int8 head counts as a
    third: a stand-in for its time, which belongs to machines and not to the bundle.
    """
    placed = [(row, row.parsed()) for row in rows]

    def device_work(plan: Plan) -> float:
        if plan.kind is not PlanKind.SPLIT:
            return 0.0
        return work[plan.cut] * (_INT8_WORK if plan.head == Precision.INT8 else 1.0)

    def costs(row: PlanRow, plan: Plan) -> tuple[float, int, int, float, bool]:
        effort = _EFFORT.get(plan.codec.partition("-")[0], 0)
        return device_work(plan), effort, row.bytes_p50, -row.agreement.value, not row.prefixes

    def beats(a: tuple[PlanRow, Plan], b: tuple[PlanRow, Plan]) -> bool:
        ours, theirs = costs(*a), costs(*b)
        return ours != theirs and all(x <= y for x, y in zip(ours, theirs, strict=True))

    remote = [item for item in placed if item[1].kind is not PlanKind.LOCAL]
    return tuple(
        item[0]
        for item in placed
        if item[1].kind is not PlanKind.SPLIT or not any(beats(rival, item) for rival in remote)
    )

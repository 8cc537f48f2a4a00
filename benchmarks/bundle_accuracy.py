"""Whether a bundle answers as it says, on labelled pictures it has never seen.

    light    the int8 model with the bundle's preprocessing, top-1 against its float original:
             the torch module with the independent reference preprocessing
    cloud    `cloud:raw`: pixels from the device's resize, a real frame, gRPC, a real cloud server;
             against the large torch module run bare on the same uint8 pixels, and (to know what
             the device's resize costs) on those of the reference preprocessing
    split    every split plan of the table through the same server: its agreement with the large
             torch module, against what the table says

DIR holds pictures and labels.tsv: a header, then FILE <tab> CLASS INDEX.
"""

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
from _common import Report, Target, demo_bundle, load, machine, parser, progress, run

from hybridge.cli.console import table
from hybridge.cloud.compiler.pictures import PictureSet, open_pictures, read_picture
from hybridge.cloud.compiler.preprocess import reference_pixels
from hybridge.cloud.compiler.sources import open_source
from hybridge.cloud.config import CloudConfig
from hybridge.cloud.server import CloudServer
from hybridge.devices.models import DeviceModels, Pixels
from hybridge.protos import oip
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip as messages
from hybridge.shared.bundle import Bundle
from hybridge.shared.codec import codec_by_name
from hybridge.shared.errors import BuildError, ConfigError
from hybridge.shared.frame import encode_frame
from hybridge.shared.manifest import PlanRow, Rate
from hybridge.shared.plan import Plan, PlanKind
from hybridge.shared.preprocess import PreprocessSpec
from hybridge.shared.security import Address, Security
from hybridge.shared.signing import TrustStore
from hybridge.shared.tensor import Array

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]

LIGHT_BOUND_POINTS = 1.5
STANDARD_ERRORS = 2.0
QUICK_PICTURES = 12
BUDGET_MS = 60_000.0
"""So much that no deadline ever decides."""
RAW = Plan.cloud("raw")


@dataclass
class Tally:
    """One plan's classes and bytes, picture by picture."""

    classes: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


@dataclass
class Findings:
    """Classes picture by picture, by whose they are."""

    truth: list[int] = field(default_factory=list)
    light_float: list[int] = field(default_factory=list)
    light_float_same_pixels: list[int] = field(default_factory=list)
    large: list[int] = field(default_factory=list)
    large_reference: list[int] = field(default_factory=list)
    probability_error: float = 0.0
    """The largest difference of a probability between cloud:raw and the large model run bare."""
    plans: dict[Plan, Tally] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """One plan's agreement here against its table's."""

    plan: str
    measured: Rate
    promised: Rate
    bytes_p50: int
    promised_bytes_p50: int

    @property
    def gap(self) -> float:
        return self.measured.value - self.promised.value

    @property
    def allowed(self) -> float:
        """Two standard errors of the difference of two independent rates."""
        errors = (self.measured.standard_error, self.promised.standard_error)
        return STANDARD_ERRORS * float(np.hypot(*errors))

    @property
    def holds(self) -> bool:
        return abs(self.gap) <= self.allowed


def judge(row: PlanRow, tally: Tally, wanted: Sequence[int]) -> Verdict:
    """A row of the table against what was found."""
    differ = differing(tally.classes, wanted)
    return Verdict(
        plan=row.plan,
        measured=Rate.of(len(wanted) - differ, len(wanted)),
        promised=row.agreement,
        bytes_p50=int(np.median(tally.sizes)),
        promised_bytes_p50=row.bytes_p50,
    )


def differing(classes: Sequence[int], wanted: Sequence[int]) -> int:
    """On how many pictures two models disagree."""
    return sum(a != b for a, b in zip(classes, wanted, strict=True))


def percent_right(classes: Sequence[int], truth: Sequence[int]) -> float:
    """Top-1 in percent."""
    return 100.0 * (1 - differing(classes, truth) / len(truth))


class Bare:
    """A torch classifier without us: it sees normalized pixels and nothing else."""

    def __init__(self, module: "torch.nn.Module", spec: PreprocessSpec) -> None:
        self._module = module
        self._mean = np.array(spec.mean, np.float32)
        self._std = np.array(spec.std, np.float32)

    def probabilities(self, pixels: Pixels) -> Floats:
        """[classes] for uint8 [s, s, 3]."""
        import torch

        tensor = ((pixels.astype(np.float32) - self._mean) / self._std).transpose(2, 0, 1)
        with torch.inference_mode():
            output = self._module(torch.from_numpy(tensor[None].copy()))
            return cast(Floats, torch.softmax(output, 1).numpy()[0])

    def answer(self, pixels: Pixels) -> int:
        return int(np.argmax(self.probabilities(pixels)))


def originals(bundle: Bundle) -> tuple[Bare, Bare]:
    """Light and large model as they were before the build; BuildError if they are others."""
    import torch

    torch.set_num_threads(2)
    manifest = bundle.manifest
    found: list[Bare] = []
    for name, part in (("light", manifest.light), ("large", manifest.large)):
        source = open_source(f"hybridge.cli.demo.models:{name}")
        if source.sha256 != manifest.provenance[name] or source.module is None:
            raise BuildError(f"the bundle's {name} model is not the demo's: build it anew")
        found.append(Bare(source.module, part.preprocessing.spec))
    return found[0], found[1]


def open_data(folder: Path, *, classes: int, most: int | None) -> PictureSet:
    """The labelled pictures of a folder, or some of them, spread evenly over its order."""
    labels = folder / "labels.tsv"
    if not labels.is_file():
        raise ConfigError(f"--data {folder}: there is no labels.tsv in it")
    pictures = open_pictures(folder, labels=labels, classes=classes, minimum=1)
    known = [at for at, label in enumerate(pictures.labels) if label is not None]
    if not known:
        raise ConfigError(f"--data {folder}: labels.tsv names none of its pictures")
    if most is not None and len(known) > most:
        known = [known[at * len(known) // most] for at in range(most)]
    return PictureSet(
        files=tuple(pictures.files[at] for at in known),
        labels=tuple(pictures.labels[at] for at in known),
        sha256=pictures.sha256,
    )


def measure(options: argparse.Namespace) -> Report:
    load_before = load()
    if not options.data.is_dir():
        raise ConfigError(f"--data {options.data}: no such folder")
    bundle = demo_bundle()
    most = QUICK_PICTURES if options.quick else None
    pictures = open_data(options.data, classes=bundle.manifest.classes, most=most)
    found = asyncio.run(_look(bundle, pictures))
    return _report(bundle, pictures, found, load_before=load_before)


async def _look(bundle: Bundle, pictures: PictureSet) -> Findings:
    manifest = bundle.manifest
    models = DeviceModels(bundle, threads=2)
    light, large = originals(bundle)
    light_spec = manifest.light.preprocessing.spec
    large_spec = manifest.large.preprocessing.spec
    found = Findings(plans={row.parsed(): Tally() for row in manifest.table})
    async with _cloud(bundle) as stub:
        with progress("pictures", len(pictures)) as advance:
            for file, label in zip(pictures.files, pictures.labels, strict=True):
                picture = read_picture(file)
                pixels = models.resize_large(picture)
                wanted = large.probabilities(pixels)
                found.truth.append(cast(int, label))
                found.large.append(int(np.argmax(wanted)))
                found.large_reference.append(large.answer(reference_pixels(picture, large_spec)))
                light_pixels = models.resize_light(picture)
                found.light_float.append(light.answer(reference_pixels(picture, light_spec)))
                found.light_float_same_pixels.append(light.answer(light_pixels))
                answers = await _remote_answers(stub, models, found.plans, pixels)
                answers[Plan.local()] = models.light(light_pixels)
                error = float(np.abs(answers[RAW] - wanted).max())
                found.probability_error = max(found.probability_error, error)
                for plan, probabilities in answers.items():
                    found.plans[plan].classes.append(int(np.argmax(probabilities)))
                advance()
    return found


async def _remote_answers(
    stub: oip.Stub, models: DeviceModels, plans: Mapping[Plan, Tally], pixels: Pixels
) -> dict[Plan, Floats]:
    """What the cloud says under every remote plan; the sizes of the frames go into the tallies."""
    manifest = models.bundle.manifest
    tensors: dict[tuple[str, str], Array] = {}
    calls: dict[Plan, Any] = {}
    for plan, tally in plans.items():
        if plan.kind is PlanKind.LOCAL:
            tally.sizes.append(0)
            continue
        key = (plan.cut, plan.head)
        if key not in tensors:
            tensors[key] = models.tensor(plan, pixels)
        contract = manifest.contract(plan)
        frame = encode_frame(
            tensors[key], contract=contract, codec=codec_by_name(plan.codec, contract)
        )
        tally.sizes.append(len(frame))
        request = pb.ModelInferRequest(model_name=manifest.name, model_version=manifest.version)
        messages.add_input(request, "frame", cast(Array, np.frombuffer(frame, np.uint8)))
        messages.set_parameters(request.parameters, {messages.LATENCY_BUDGET_MS: BUDGET_MS})
        calls[plan] = stub.ModelInfer(request, timeout=BUDGET_MS / 1e3)
    responses = await asyncio.gather(*calls.values())
    return {
        plan: cast(Floats, messages.output_array(response, "probabilities")[0])
        for plan, response in zip(calls, responses, strict=True)
    }


@contextlib.asynccontextmanager
async def _cloud(bundle: Bundle) -> AsyncIterator[oip.Stub]:
    """A cloud server with this bundle, and a connection to it."""
    key = json.loads((bundle.path / "manifest.sig").read_text())["public_key"]
    server = CloudServer(
        CloudConfig(
            bundles=bundle.path.parent.parent,
            trust=TrustStore(frozenset({key})),
            address=Address("127.0.0.1", 0),
        )
    )
    try:
        await server.startup()
        async with Security().channel(server.address) as channel:
            yield oip.Stub(channel)
    finally:
        await server.shutdown()


def _report(bundle: Bundle, pictures: PictureSet, found: Findings, *, load_before: float) -> Report:
    truth, count = found.truth, len(pictures)
    top1: dict[str, float] = {
        "light, int8": percent_right(found.plans[Plan.local()].classes, truth),
        "light, float, reference preprocessing": percent_right(found.light_float, truth),
        "light, float, the device's pixels": percent_right(found.light_float_same_pixels, truth),
        "large, float, the device's pixels": percent_right(found.large, truth),
        "large, float, reference preprocessing": percent_right(found.large_reference, truth),
    }
    points = top1["light, float, reference preprocessing"] - top1["light, int8"]
    raw = found.plans[RAW].classes
    verdicts = [judge(row, found.plans[row.parsed()], found.large) for row in bundle.manifest.table]
    splits = [verdict for verdict in verdicts if Plan.parse(verdict.plan).kind is PlanKind.SPLIT]
    held = 100.0 * sum(verdict.holds for verdict in splits) / max(len(splits), 1)
    targets = [
        Target.at_most(
            "light int8 top-1, distance from its float original",
            abs(points),
            unit="points",
            bound=LIGHT_BOUND_POINTS,
        ),
        Target.at_most(
            "cloud:raw, pictures answered otherwise than by the large model run bare",
            differing(raw, found.large),
            unit="pictures",
            bound=0,
        ),
        Target.at_least(
            "split plans whose agreement is as the table says", held, unit="%", bound=100.0
        ),
    ]
    return Report(
        benchmark="bundle_accuracy",
        targets=targets,
        figures={
            "bundle": {"name": bundle.manifest.name, "sha256": bundle.sha256},
            "pictures": count,
            "top1_percent": {name: round(value, 2) for name, value in top1.items()},
            "light_lost_points": round(points, 2),
            "light_int8_differs_from_float": differing(
                found.plans[Plan.local()].classes, found.light_float
            ),
            "cloud_raw_largest_probability_error": found.probability_error,
            "cloud_raw_differs_from_large_on_reference_pixels": differing(
                raw, found.large_reference
            ),
            "largest_split_gap_points": round(_largest_gap(splits), 2),
            "plans": [_verdict_json(verdict) for verdict in verdicts],
        },
        samples={
            "files": [file.name for file in pictures.files],
            "truth": truth,
            "light_float": found.light_float,
            "large": found.large,
            "large_reference": found.large_reference,
            "plans": {str(plan): tally.classes for plan, tally in found.plans.items()},
        },
        machine=machine(load_before=load_before),
        notes=[
            f"the table was measured on {bundle.manifest.table[0].agreement.samples} pictures, "
            f"this on {count}; a plan holds within {STANDARD_ERRORS:g} standard errors of the "
            f"difference; the largest gap of a split plan is {_largest_gap(splits):.1f} points",
            "cloud:raw differs from the large model on reference pixels on "
            f"{differing(raw, found.large_reference)} pictures (what resizing on the device "
            "changes); largest difference of a probability on the same pixels "
            f"{found.probability_error:.1e}",
        ],
        tables=[
            table(
                f"top-1 on {count} pictures, %",
                ("model", "top-1"),
                [(name, f"{value:.2f}") for name, value in top1.items()],
            ),
            table(
                "agreement with the large model, %",
                (
                    "plan",
                    "here",
                    "± se",
                    "table",
                    "± se",
                    "gap",
                    "allowed",
                    "holds",
                    "bytes",
                    "was",
                ),
                [_verdict_row(verdict) for verdict in verdicts],
            ),
        ],
    )


def _largest_gap(verdicts: Sequence[Verdict]) -> float:
    return 100 * max((abs(verdict.gap) for verdict in verdicts), default=0.0)


def _verdict_row(verdict: Verdict) -> tuple[str, ...]:
    return (
        verdict.plan,
        f"{100 * verdict.measured.value:.1f}",
        f"{100 * verdict.measured.standard_error:.1f}",
        f"{100 * verdict.promised.value:.1f}",
        f"{100 * verdict.promised.standard_error:.1f}",
        f"{100 * verdict.gap:+.1f}",
        f"{100 * verdict.allowed:.1f}",
        "yes" if verdict.holds else "NO",
        str(verdict.bytes_p50),
        str(verdict.promised_bytes_p50),
    )


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "plan": verdict.plan,
        "measured": msgspec.structs.asdict(verdict.measured),
        "table": msgspec.structs.asdict(verdict.promised),
        "gap": round(verdict.gap, 4),
        "allowed": round(verdict.allowed, 4),
        "holds": verdict.holds,
        "bytes_p50": verdict.bytes_p50,
        "table_bytes_p50": verdict.promised_bytes_p50,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    options_parser = parser(__doc__ or "")
    options_parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="pictures and labels.tsv"
    )
    return run(measure, options_parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())

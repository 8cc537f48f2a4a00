"""From a recipe to a bundle: every step cached, every figure measured.

light  ──▶ float TFLite ──▶ int8 TFLite
large  ──▶ ONNX ───────────────┐
       ──▶ float TFLite ─┬─▶ pairs of cuts ──▶ heads (TFLite), tails (ONNX), contracts
            int8 TFLite ─┘                 ──▶ table, Pareto front ──▶ manifest, signed
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from ...devices.models import DeviceModels
from ...devices.profile import StageTime
from ...shared.bundle import Bundle
from ...shared.calibration import encode_calibration
from ...shared.codec.picture import format_of, formats_here
from ...shared.contract import Contract
from ...shared.errors import BuildError
from ...shared.manifest import FORMAT, Golden, Light, Manifest, encode_manifest
from ...shared.signing import SigningKey
from .accuracy import with_accuracy
from .bottleneck import bottleneck_of
from .cache import StepCache
from .checks import check_labelled, check_pictures, read_class_names
from .cloud_side import CloudSide
from .files import explained
from .golden import golden_answers, golden_arrays, pack_arrays, tolerances
from .light_temperature import with_temperature
from .parts import LargeParts, light_part
from .pictures import PictureSet, open_pictures, read_picture
from .progress import Progress, within
from .recipe import MIN_CALIBRATION_PICTURES, Recipe
from .selection import Selection, records
from .side_values import side_values, with_table
from .sources import ModelSource, look_at_source
from .steps import Steps, sha256, without_names
from .table import LightModel, Measured, candidate_plans, measure_table, pareto
from .writer import BlobStore, Staging

OnTimes = Callable[[Mapping[str, StageTime]], None]


@dataclass(frozen=True)
class _Inputs:
    """What a recipe names, opened."""

    labels: tuple[str, ...]
    light: ModelSource
    large: ModelSource
    calibration: PictureSet
    evaluation: PictureSet


def build(
    recipe: Recipe,
    *,
    root: Path,
    key: SigningKey,
    cache: StepCache,
    progress: Progress,
    on_times: OnTimes | None = None,
) -> Path:
    """Builds a bundle into ROOT/NAME/VERSION and returns that path; BuildError says what failed.

    `on_times` is told what models took here, in float and in int8, by stage name: `light/float32`.
    """
    try:
        inputs = _open(recipe, progress)
        with Staging.opened(root, recipe.name) as staging:
            steps = Steps(cache, inputs.calibration, progress)
            final = _make(recipe, inputs, steps, staging)
            progress("writing the bundle", 0, 0)
            path = staging.commit(final, key=key)
        if on_times is not None:
            on_times(steps.times)
        return path
    except OSError as error:  # whatever else meets a full disk, such as temporary files
        raise BuildError(f"the build cannot go on: {explained(error)}") from error


def _make(recipe: Recipe, inputs: _Inputs, steps: Steps, staging: Staging) -> Manifest:
    store, progress = staging.store, steps.progress
    classes = len(inputs.labels)
    own = light_part(inputs.light, recipe.light, steps=steps, store=store, classes=classes)
    parts = LargeParts.convert(inputs.large, recipe.large, steps=steps, classes=classes)
    progress("cutting heads and tails", 0, 0)
    selection = parts.selection(most=recipe.max_cuts)
    contracts = _contracts(parts, selection, recipe, steps)
    draft = Manifest(
        format=FORMAT,
        name=recipe.name,
        version=recipe.version,
        task="classification",
        labels=store.add("\n".join(inputs.labels).encode()),
        classes=classes,
        default_budget_ms=recipe.default_budget_ms,
        objective=recipe.objective,
        min_agreement=recipe.min_agreement,
        light=own.light,
        large=parts.assemble(selection.cuts, contracts=contracts, store=store),
        table=(),
        golden=Golden(blob=store.add(b""), tolerance={}),
        provenance={
            "light": inputs.light.sha256,
            "large": inputs.large.sha256,
            "calibration": inputs.calibration.sha256,
            "evaluation": inputs.evaluation.sha256,
            **steps.tools,
        },
    )
    draft = with_temperature(staging.bundle(draft), inputs.light, steps)
    work = parts.work()
    measured = _measure(staging, draft, recipe, inputs.evaluation, steps, in_float=own.in_float)
    table = pareto(measured.rows, work=work)
    used = {row.parsed().cut for row in table}
    kept = [pair for pair in selection.cuts if pair.name in used]
    large = parts.assemble(kept, contracts=contracts, store=store)
    found = replace(
        draft.build,
        conversions=dict(steps.conversions),
        quantized=with_accuracy(steps.tried, measured, [pair.name for pair in selection.cuts]),
        cuts=tuple(records(parts.pairing, selection, kept=used)),
    )
    progress("answers to compare devices by", 0, 0)
    calibration = store.add(encode_calibration(measured.calibration))
    light = replace(draft.light, calibration=calibration)
    final = replace(draft, light=light, table=table, large=large, build=found)
    return _with_golden(staging.bundle(final), inputs.calibration, store)


def _contracts(
    parts: LargeParts, selection: Selection, recipe: Recipe, steps: Steps
) -> dict[str, Contract]:
    step = "learning what codecs need to know"
    steps.progress(step, 0, 0)
    encoded = steps.cache.get(
        "contracts",
        inputs=[
            *(origin.sha256 for origin, _ in parts.origins(selection.cuts)),
            sha256(msgspec.json.encode(selection.cuts)),
            steps.calibration.sha256,
            recipe.tensor_codecs,
            steps.tools,
        ],
        make=lambda: msgspec.json.encode(
            parts.contracts(
                selection.cuts,
                codecs=recipe.tensor_codecs,
                progress=within(steps.progress, step),
            )
        ),
    )
    return msgspec.json.decode(encoded, type=dict[str, Contract])


def check_formats(recipe: Recipe) -> None:
    """BuildError for a picture format that cannot be measured here."""
    for codec in recipe.picture_codecs:
        picture_format = format_of(codec)
        if picture_format is not None and picture_format not in formats_here():
            raise BuildError(
                f"picture_codecs has {codec!r}, and nothing here makes {picture_format}; "
                'pip install "hybridge[pictures]"'
            )


def _open(recipe: Recipe, progress: Progress) -> _Inputs:
    check_formats(recipe)
    labels = read_class_names(recipe.labels)
    pictures = recipe.pictures
    calibration = open_pictures(
        pictures.calibration, labels=None, classes=len(labels), minimum=MIN_CALIBRATION_PICTURES
    )
    evaluation = open_pictures(
        pictures.evaluation, labels=pictures.labels, classes=len(labels), minimum=1
    )
    calibration, evaluation = with_table((calibration, evaluation), pictures.inputs)
    check_labelled(
        pictures.labels, classes=len(labels), evaluation=evaluation, others=(calibration,)
    )
    checking = "checking pictures"
    if 0 < evaluation.labelled < len(evaluation):
        checking += f" ({evaluation.labelled} of {len(evaluation)} measured on have a label)"
    check_pictures(calibration, evaluation, count=partial(progress, checking))
    progress("reading models", 0, 0)
    large = look_at_source(recipe.large.model, allow_pickle=recipe.large.allow_pickle)
    for file in recipe.large.bottlenecks:  # what is wrong with one is said before the conversion
        bottleneck_of(file, large_sha256=large.sha256)
    return _Inputs(
        labels=labels,
        light=look_at_source(recipe.light.model, allow_pickle=recipe.light.allow_pickle),
        large=large,
        calibration=calibration,
        evaluation=evaluation,
    )


def _measure(
    staging: Staging,
    manifest: Manifest,
    recipe: Recipe,
    evaluation: PictureSet,
    steps: Steps,
    *,
    in_float: Light | None,
) -> Measured:
    bundle = staging.bundle(manifest)

    def light_in_float() -> LightModel | None:
        if in_float is None:
            return None
        return DeviceModels(staging.bundle(replace(manifest, light=in_float)), threads=2).light

    def make() -> bytes:
        plans = candidate_plans(
            manifest, picture_codecs=recipe.picture_codecs, tensor_codecs=recipe.tensor_codecs
        )
        measured = measure_table(
            DeviceModels(bundle, threads=2),
            CloudSide.open(bundle, threads=2),
            plans,
            evaluation,
            further={
                precision: CloudSide.open(bundle, threads=2, precision=precision)
                for precision in manifest.large.variants
            },
            light_in_float=light_in_float(),
            view_count=recipe.pictures.views,
            most_pictures=recipe.pictures.table or None,
            count=partial(steps.progress, "measuring every plan"),
        )
        return msgspec.json.encode(measured)

    encoded = steps.cache.get(
        "table",
        inputs=[
            sha256(encode_manifest(_what_counts(manifest))),
            in_float.blob.sha256 if in_float else "",
            recipe.pictures.views,
            recipe.pictures.table,
            recipe.picture_codecs,
            recipe.tensor_codecs,
        ],
        make=make,
    )
    return msgspec.json.decode(encoded, type=Measured)


def _what_counts(manifest: Manifest) -> Manifest:
    """What a table depends on: of the models, their blobs say all."""
    unnamed = manifest.provenance | {"light": "", "large": "", "calibration": ""}
    return replace(without_names(manifest), provenance=unnamed)


def _with_golden(bundle: Bundle, calibration: PictureSet, store: BlobStore) -> Manifest:
    (beside, *_) = side_values(calibration, bundle.manifest.large.inputs)
    arrays = golden_arrays(DeviceModels(bundle), read_picture(calibration.files[0]), beside)
    arrays |= golden_answers(bundle, arrays)
    golden = Golden(blob=store.add(pack_arrays(arrays)), tolerance=tolerances(arrays))
    return replace(bundle.manifest, golden=golden)

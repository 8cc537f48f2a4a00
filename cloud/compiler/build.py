"""From a recipe to a bundle: every step cached, every figure measured.

light  ──▶ float TFLite ──▶ int8 TFLite
large  ──▶ ONNX ───────────────┐
       ──▶ float TFLite ─┬─▶ pairs of cuts ──▶ heads (TFLite), tails (ONNX), contracts
            int8 TFLite ─┘                 ──▶ table, Pareto front ──▶ manifest, signed
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ...devices.models import DeviceModels
from ...shared.bundle import Bundle
from ...shared.errors import BuildError
from ...shared.manifest import FORMAT, Golden, Manifest, PlanRow, encode_manifest
from ...shared.signing import SigningKey
from .cache import StepCache
from .cloud_side import CloudSide
from .golden import golden_arrays, pack_arrays, tolerances
from .parts import LargeParts, light_part
from .pictures import PictureSet, open_pictures, read_picture
from .recipe import MIN_CALIBRATION_PICTURES, Recipe
from .sources import ModelSource, open_source
from .steps import Progress, Steps, sha256
from .table import candidate_plans, measure_table, pareto
from .writer import BlobStore, write_blobs, write_bundle


@dataclass(frozen=True)
class _Inputs:
    """What a recipe names, opened."""

    labels: tuple[str, ...]
    light: ModelSource
    large: ModelSource
    calibration: PictureSet
    evaluation: PictureSet


def build(
    recipe: Recipe, *, root: Path, key: SigningKey, cache: StepCache, progress: Progress
) -> Path:
    """Builds a bundle into ROOT/NAME/VERSION and returns that path; BuildError says what failed."""
    progress("reading models and pictures", 0, 0)
    inputs = _open(recipe)
    steps = Steps(cache, inputs.calibration, progress)
    store = BlobStore()
    classes = len(inputs.labels)
    light = light_part(inputs.light, recipe.light, steps=steps, store=store, classes=classes)
    parts = LargeParts.convert(inputs.large, recipe.large, steps=steps, classes=classes)
    progress("cutting heads and tails", 0, 0)
    candidates = parts.useful_pairs(most=recipe.max_cuts)
    draft = Manifest(
        format=FORMAT,
        name=recipe.name,
        version=recipe.version,
        task="classification",
        labels=store.add("\n".join(inputs.labels).encode()),
        classes=classes,
        default_budget_ms=recipe.default_budget_ms,
        light=light,
        large=parts.assemble(candidates, codecs=recipe.tensor_codecs, store=store),
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
    with tempfile.TemporaryDirectory(prefix="hybridge-build-") as scratch:
        staged = _stage(draft, store, Path(scratch))
        rows = _measure(staged, recipe, inputs.evaluation, steps)
        table = pareto(rows, depth=parts.depth())
        used = {row.parsed().cut for row in table}
        kept = [pair for pair in candidates if pair.name in used]
        large = parts.assemble(kept, codecs=recipe.tensor_codecs, store=store)
        final = msgspec.structs.replace(draft, table=table, large=large)
        final = _with_golden(_stage(final, store, Path(scratch)), inputs.calibration, store)
    progress("writing the bundle", 0, 0)
    return write_bundle(final, store.contents, root=root, key=key)


def _open(recipe: Recipe) -> _Inputs:
    try:
        labels = tuple(recipe.labels.read_text().splitlines())
    except OSError as error:
        raise BuildError(f"cannot read labels {recipe.labels}: {error.strerror}") from error
    pictures = recipe.pictures
    calibration = open_pictures(
        pictures.calibration, labels=None, classes=len(labels), minimum=MIN_CALIBRATION_PICTURES
    )
    evaluation = open_pictures(
        pictures.evaluation, labels=pictures.labels, classes=len(labels), minimum=1
    )
    return _Inputs(
        labels=labels,
        light=open_source(recipe.light.model),
        large=open_source(recipe.large.model),
        calibration=calibration,
        evaluation=evaluation,
    )


def _stage(manifest: Manifest, store: BlobStore, folder: Path) -> Bundle:
    """A bundle that is not signed yet, for running what is in it."""
    write_blobs(manifest, store.contents, folder)
    return Bundle(path=folder, manifest=manifest, sha256="")


def _measure(
    bundle: Bundle, recipe: Recipe, evaluation: PictureSet, steps: Steps
) -> tuple[PlanRow, ...]:
    manifest = bundle.manifest

    def make() -> bytes:
        plans = candidate_plans(
            manifest, picture_codecs=recipe.picture_codecs, tensor_codecs=recipe.tensor_codecs
        )
        rows = measure_table(
            DeviceModels(bundle, threads=2),
            CloudSide.open(bundle, threads=2),
            plans,
            evaluation,
            view_count=recipe.pictures.views,
            on_picture=lambda done, total: steps.progress("measuring every plan", done, total),
        )
        return msgspec.json.encode(rows)

    encoded = steps.cache.get(
        "table",
        inputs=[
            sha256(encode_manifest(manifest)),
            recipe.pictures.views,
            recipe.picture_codecs,
            recipe.tensor_codecs,
        ],
        make=make,
    )
    return msgspec.json.decode(encoded, type=tuple[PlanRow, ...])


def _with_golden(bundle: Bundle, calibration: PictureSet, store: BlobStore) -> Manifest:
    arrays = golden_arrays(DeviceModels(bundle), read_picture(calibration.files[0]))
    golden = Golden(blob=store.add(pack_arrays(arrays)), tolerance=tolerances(arrays))
    return msgspec.structs.replace(bundle.manifest, golden=golden)

"""What the compiler makes of well-known models: does each build, how exactly, how fast, how large.

    python benchmarks/compiler [--quick] [--json] [--models resnet50,lite0] [--pictures DIR]

Every model is built by a real `hybridge build` in a process of its own with nothing in its cache.
Models are built over the 20 pictures that foolbox ships unless a folder is named; so is the VGG16,
whose brain scans no package ships: --mri-pictures names a folder of them. --quick builds
EfficientNet-Lite0 alone, as an .onnx file, with two cuts, over 12 pictures.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from _common import Report, Summary, Target, load, machine, parser, run
from compiler import exactness, speed, zoo
from compiler.building import Built, Disk, build
from compiler.recipes import pictures_below, shipped_pictures, write_recipe
from compiler.speed import HeadTimes

from hybridge.cli.console import notes, table
from hybridge.cloud.compiler.pictures import read_picture
from hybridge.cloud.compiler.quantization.exclusions import OperatorTime
from hybridge.shared.errors import ConfigError

EXACT = 1e-4
FASTER = 2.5
SLOWER_MARGIN = 1.3
HEADS_S = 60.0
MEMORY_TIMES, MEMORY_MORE_BYTES = 4, 2 * 10**9
DISK_TIMES = 1.5
QUICK = "lite0"
QUICK_PICTURES, QUICK_CUTS, QUICK_ROUNDS = 12, 2, 3
ROUNDS = 6
FAST_INT8 = ("resnet50", "lite0")
COMPOSED_PICTURES = 3


@dataclass(frozen=True)
class Found:
    """Everything measured on one model."""

    model: zoo.ZooModel
    float_bytes: int
    built: Built
    disk: Disk
    errors: dict[str, float]
    heads: list[HeadTimes]
    operators: list[OperatorTime]


def measure(options: argparse.Namespace) -> Report:
    before = load()
    models = _models(options)
    root = options.keep or Path(tempfile.mkdtemp(prefix="hybridge-zoo-"))
    try:
        found = [_measure_model(model, options, root) for model in models]
    finally:
        if options.keep is None:
            shutil.rmtree(root, ignore_errors=True)
    return _report(found, load_before=before)


def _models(options: argparse.Namespace) -> list[zoo.ZooModel]:
    models = zoo.zoo()
    names = [QUICK] if options.quick else options.models.split(",") if options.models else models
    if unknown := [name for name in names if name not in models]:
        raise ConfigError(f"no model {unknown[0]!r} in the zoo (there: {', '.join(models)})")
    return [models[name] for name in names]


def _measure_model(model: zoo.ZooModel, options: argparse.Namespace, root: Path) -> Found:
    folder = options.mri_pictures if model.name == "vgg16" else options.pictures
    pictures = pictures_below(folder) if folder else shipped_pictures()
    if options.quick:
        pictures = pictures[:QUICK_PICTURES]
    home = root / model.name
    if options.quick:
        model = zoo.as_file(model, home)
    recipe = write_recipe(
        model, pictures, home / "recipe", max_cuts=QUICK_CUTS if options.quick else options.max_cuts
    )
    notes.print(f"{model.name}: building")
    built = build(recipe, home=home, on_step=lambda step: notes.print(f"  {step}"))
    notes.print(f"{model.name}: measuring")
    evaluated = sorted((recipe.parent / "evaluation").iterdir())[:COMPOSED_PICTURES]
    return Found(
        model=model,
        float_bytes=zoo.float_bytes(model),
        built=built,
        disk=Disk.of(built.bundle),
        errors=exactness.composition_errors(
            built.bundle, [read_picture(file) for file in evaluated]
        ),
        heads=speed.time_heads(built.bundle, rounds=QUICK_ROUNDS if options.quick else ROUNDS),
        operators=speed.operator_times(built.bundle),
    )


def _targets(found: Found) -> list[Target]:
    name, size, built = found.model.name, found.float_bytes, found.built
    memory_gb = (MEMORY_TIMES * size + MEMORY_MORE_BYTES) / 1e9
    worst = max(found.errors.values(), default=0.0)
    slow = speed.slower(found.operators, margin=SLOWER_MARGIN)
    targets = [
        Target.at_least(f"{name}: cuts in the bundle", len(found.errors), unit="cuts", bound=1),
        Target.at_most(f"{name}: head and tail off the whole", worst, unit="of max", bound=EXACT),
        Target.at_most(
            f"{name}: peak memory of the build",
            built.peak_bytes / 1e9,
            unit="GB",
            bound=round(memory_gb, 3),
        ),
        Target.at_most(
            f"{name}: int8 heads and tails on disk",
            found.disk.large / size,
            unit="x float",
            bound=DISK_TIMES,
        ),
        Target.at_most(
            f"{name}: float heads on disk", found.disk.float_heads / size, unit="x float", bound=1
        ),
        *(
            Target.at_most(f"{name}: {precision} tails", held / size, unit="x float", bound=1)
            for precision, held in found.disk.variants.items()
        ),
        Target.at_most(
            f"{name}: int8 operators over {SLOWER_MARGIN:g}x their float twin's time",
            len(slow),
            unit="operators",
            bound=0,
        ),
    ]
    if name == "resnet50":
        targets.append(
            Target.at_most(f"{name}: all heads made in", built.heads_s, unit="s", bound=HEADS_S)
        )
    if name in FAST_INT8 and found.heads:
        targets.append(
            Target.at_least(
                f"{name}: deepest int8 head against float",
                found.heads[-1].speedup,
                unit="x",
                bound=FASTER,
            )
        )
    return targets


def _report(found: Sequence[Found], *, load_before: float) -> Report:
    return Report(
        benchmark="compiler",
        targets=[target for each in found for target in _targets(each)],
        figures={each.model.name: _figures(each) for each in found},
        samples={
            each.model.name: {
                "heads": [asdict(times) for times in each.heads],
                "operators": [asdict(times) for times in each.operators],
                "steps_s": each.built.steps_s,
                "steps_bytes": each.built.steps_bytes,
                "composition_errors": each.errors,
            }
            for each in found
        },
        machine=machine(load_before=load_before),
        notes=[
            "random weights (all but lite0, lite2, vgg16) say nothing of accuracy",
            "times of a whole build depend on what else the machine does; heads take turns of "
            "several runs, of which the first is cold and the last ones count",
        ],
        tables=[_table(found)],
    )


def _figures(found: Found) -> dict[str, Any]:
    manifest = found.built.bundle.manifest
    checked = [cut.error for cut in manifest.build.cuts if cut.error is not None]
    return {
        "float_mb": round(found.float_bytes / 1e6, 1),
        "build_s": round(found.built.seconds, 1),
        "heads_s": round(found.built.heads_s, 1),
        "peak_mb": round(found.built.peak_bytes / 1e6),
        "disk": asdict(found.disk),
        "cuts": len(manifest.large.cuts),
        "cuts_checked_by_the_build": len(checked),
        "largest_error_it_saw": max(checked, default=None),
        "largest_composition_error": max(found.errors.values(), default=None),
        "speedup": {times.cut: round(times.speedup, 2) for times in found.heads},
        "speedup_cold": {times.cut: round(times.cold_speedup, 2) for times in found.heads},
        "deepest_int8_ms": asdict(Summary.of(found.heads[-1].int8_ms)) if found.heads else None,
        "slower_operators": [
            f"{each.kind} {each.name}: {each.int8_ms:.3f} ms, float {each.float32_ms:.3f}"
            for each in speed.slower(found.operators, margin=1.0)
        ],
        "operators_compared": len(found.operators),
        "sha256": found.built.bundle.sha256,
    }


def _table(found: Sequence[Found]) -> Any:
    columns = ("model", "float MB", "build s", "peak MB", "disk x", "cuts", "error", "int8 x")
    rows = [
        (
            each.model.name,
            f"{each.float_bytes / 1e6:.0f}",
            f"{each.built.seconds:.0f}",
            f"{each.built.peak_bytes / 1e6:.0f}",
            f"{each.disk.large / each.float_bytes:.2f}",
            str(len(each.errors)),
            f"{max(each.errors.values(), default=0.0):.1e}",
            f"{each.heads[-1].speedup:.1f}" if each.heads else "-",
        )
        for each in found
    ]
    return table("builds", columns, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    made = parser(__doc__ or "")
    made.add_argument("--models", default="", metavar="NAMES", help="with commas; all by default")
    made.add_argument("--pictures", type=Path, metavar="DIR", help="pictures to build over")
    made.add_argument("--mri-pictures", type=Path, metavar="DIR", help="those for the VGG16")
    made.add_argument("--max-cuts", type=int, metavar="N", help="as in a recipe")
    made.add_argument("--keep", type=Path, metavar="DIR", help="keep homes and bundles there")
    return run(measure, made.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())

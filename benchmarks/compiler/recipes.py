"""A recipe file per zoo model, over one folder of pictures or those that packages ship."""

import json
from pathlib import Path

from hybridge.cli.demo.packages import package_folder
from hybridge.shared.errors import ConfigError
from hybridge.shared.preprocess import PreprocessSpec

from .zoo import ZooModel

_SUFFIXES = (".jpg", ".jpeg", ".png")
_LEAST = 12


def shipped_pictures() -> list[Path]:
    """The 20 ImageNet pictures that foolbox ships."""
    return sorted((package_folder("foolbox") / "data").glob("imagenet_*.jpg"))


def pictures_below(folder: Path) -> list[Path]:
    """Every picture below a folder; ConfigError if there are too few to calibrate and measure."""
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)
    if len(found) < _LEAST:
        raise ConfigError(f"{folder} holds {len(found)} pictures, at least {_LEAST} are needed")
    return found


def write_recipe(
    model: ZooModel, pictures: list[Path], folder: Path, *, max_cuts: int | None = None
) -> Path:
    """FOLDER/recipe.toml with links to the pictures: two in three calibrate, the others measure."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(pictures):
        use = "evaluation" if number % 3 == 2 else "calibration"
        (folder / use).mkdir(exist_ok=True)
        (folder / use / f"{number:04}{file.suffix}").symlink_to(file.resolve())
    (folder / "labels.txt").write_text("\n".join(model.labels()))
    lines = [
        f"name = {json.dumps(model.name.replace('_', '-'))}",
        'labels = "labels.txt"',
        *([] if max_cuts is None else [f"max_cuts = {max_cuts}"]),
        *_model("light", model.light, model.light_preprocessing),
        *_model("large", model.source, model.preprocessing),
        "[pictures]",
        'calibration = "calibration"',
        'evaluation = "evaluation"',
    ]
    file = folder / "recipe.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def _model(part: str, model: str, spec: PreprocessSpec) -> list[str]:
    padding = spec.crop_padding_px
    return [
        f"[{part}]",
        f"model = {json.dumps(model)}",
        f"[{part}.preprocessing]",
        f"size_px = {spec.size_px}",
        *([] if padding is None else [f"crop_padding_px = {padding}"]),
        f"mean = {list(spec.mean)}",
        f"std = {list(spec.std)}",
    ]

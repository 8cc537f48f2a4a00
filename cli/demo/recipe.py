"""The demo's recipe and its pictures, taken from installed packages."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from ...cloud.compiler.recipe import ModelRecipe, PicturesRecipe, Recipe
from ...shared.preprocess import PreprocessSpec
from .models import LARGE_SIZE_PX, LIGHT_SIZE_PX, labels
from .packages import package_folder

NAME = "efficientnet-lite"
_SCENES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
_MORE_SCENES = ("hubble_deep_field.jpg", "motorcycle_right.png", "ihc.png", "retina.jpg")


def make_recipe(folder: Path) -> Recipe:
    """Copies the packages' pictures into a folder and returns the recipe that uses them.

    The pictures with even numbers calibrate, those with odd ones are measured on and shown.
    """
    calibration, evaluation = folder / "calibration", folder / "evaluation"
    imagenet = sorted((package_folder("foolbox") / "data").glob("imagenet_*.jpg"))
    scenes = sorted((package_folder("skimage") / "data").iterdir())
    _copy([*imagenet[0::2], *(f for f in scenes if f.name in _MORE_SCENES)], calibration)
    _copy([*imagenet[1::2], *(f for f in scenes if f.name in _SCENES)], evaluation)
    (folder / "labels.txt").write_text("\n".join(labels()))
    known = [(file.name, re.fullmatch(r"imagenet_\d+_(\d+)", file.stem)) for file in imagenet]
    rows = [f"{name}\t{match[1]}" for name, match in known if match]
    (folder / "labels.tsv").write_text("\n".join(["file\tclass_index", *rows]))
    return Recipe(
        name=NAME,
        labels=folder / "labels.txt",
        light=ModelRecipe(
            model="hybridge.cli.demo.models:light", preprocessing=_spec(LIGHT_SIZE_PX)
        ),
        large=ModelRecipe(
            model="hybridge.cli.demo.models:large", preprocessing=_spec(LARGE_SIZE_PX)
        ),
        pictures=PicturesRecipe(
            calibration=calibration, evaluation=evaluation, labels=folder / "labels.tsv", views=5
        ),
    )


def demo_pictures(folder: Path) -> list[Path]:
    """The pictures the demo sends: none of them calibrated anything."""
    return sorted((folder / "evaluation").iterdir())


def _spec(size_px: int) -> PreprocessSpec:
    return PreprocessSpec(size_px=size_px, crop_padding_px=32)


def _copy(files: Iterable[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)

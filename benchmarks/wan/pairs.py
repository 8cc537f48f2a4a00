"""The models the laboratory runs: a light one for the device, a large one for the cloud, pictures.

    imagenet   EfficientNet-Lite0 (int8) and Lite2; of the pictures of DATA/imagenet and DATA/natural
               every other one fills the table, and the others are sent in the laboratory

What the laboratory sends, no bundle has seen.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from hybridge.cli.building import build_recipe
from hybridge.cli.console import StepProgress
from hybridge.cli.demo.recipe import make_recipe
from hybridge.cloud.compiler.recipe import PicturesRecipe, Recipe
from hybridge.shared.bundle import Bundle, find_bundle, open_bundle
from hybridge.shared.errors import UnknownModel
from hybridge.shared.paths import Paths
from hybridge.shared.signing import SigningKey, TrustStore

IMAGENET = "wan-imagenet"
_SUFFIXES = frozenset({".jpg", ".jpeg"})
_CALIBRATION = 48
"""Pictures of DATA/natural that calibrate."""


def imagenet_pictures(data: Path) -> list[Path]:
    """Those that are sent."""
    return _half(data, 0)


def imagenet_recipe(data: Path, folder: Path) -> Recipe:
    """The demo's models with a table on a few hundred pictures."""
    calibration, evaluation = folder / "calibration", folder / "evaluation"
    _copy(_pictures(data / "natural")[:_CALIBRATION], calibration)
    _copy(_half(data, 1), evaluation)
    demo = make_recipe(folder / "demo")
    return Recipe(
        name=IMAGENET,
        labels=demo.labels,
        light=demo.light,
        large=demo.large,
        pictures=PicturesRecipe(calibration=calibration, evaluation=evaluation),
    )


def imagenet_bundle(data: Path) -> Bundle:
    """The bundle from $HYBRIDGE_HOME, built there if it is not."""
    paths = Paths.from_environment()
    key = SigningKey.load_or_create(paths.signing_key)
    trust = TrustStore(frozenset({key.public_hex}))
    try:
        return open_bundle(find_bundle(IMAGENET, root=paths.bundles), trust=trust)
    except UnknownModel:
        recipe = imagenet_recipe(data, paths.root / "wan")
    with StepProgress() as progress:
        return build_recipe(recipe, root=paths.bundles, progress=progress)


def _half(data: Path, first: int) -> list[Path]:
    """Every other picture of both kinds, but for those that calibrate."""
    natural = _pictures(data / "natural")[_CALIBRATION:]
    return [*_pictures(data / "imagenet")[first::2], *natural[first::2]]


def _pictures(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in _SUFFIXES)


def _copy(files: Iterable[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)

"""The models the laboratory runs: a light one for the device, a large one for the cloud, pictures.

    imagenet   EfficientNet-Lite0 (int8) and Lite2; of the pictures of DATA/imagenet and
               DATA/natural every other one fills the table, and the others are sent

What the laboratory sends, no bundle has seen.
"""

import argparse
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from _common import demo_bundle

from hybridge.cli.building import build_recipe
from hybridge.cli.console import StepProgress
from hybridge.cli.demo.recipe import make_recipe
from hybridge.cli.options import trust
from hybridge.cloud.compiler.recipe import PicturesRecipe, Recipe
from hybridge.shared.bundle import Bundle, find_bundle, open_bundle
from hybridge.shared.errors import ConfigError, UnknownModel
from hybridge.shared.paths import Paths
from hybridge.shared.signing import SigningKey, TrustStore

IMAGENET = "wan-imagenet"
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_CALIBRATION = 48
"""Pictures of DATA/natural that calibrate."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A bundle and the pictures that are shown to it."""

    name: str
    bundle: Bundle
    pictures: tuple[Path, ...]


def add_pair_options(made: argparse.ArgumentParser) -> None:
    """Those that `pair_of` reads; none of them is the demo's bundle on the demo's pictures."""
    made.add_argument("--data", type=Path, metavar="DIR", help="the pair of wan/pairs.py")
    made.add_argument("--bundle", metavar="NAME|DIR", help="any other pair")
    made.add_argument("--pictures", type=Path, metavar="DIR", help="what is sent to it")
    made.add_argument(
        "--trust",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a builder's public key whose bundles are taken; may be repeated",
    )


def pair_of(options: argparse.Namespace) -> Pair:
    """The pair that was asked for; ConfigError if it was asked for in two ways."""
    if options.data and (options.bundle or options.pictures):
        raise ConfigError("--data is a pair of its own: no --bundle, no --pictures with it")
    if options.data:
        pictures = imagenet_pictures(options.data)
        if not pictures:
            raise ConfigError(f"no pictures in {options.data}/imagenet and {options.data}/natural")
        return Pair("imagenet", imagenet_bundle(options.data), tuple(pictures))
    if (options.bundle is None) != (options.pictures is None):
        raise ConfigError("--bundle and --pictures come together")
    if options.bundle is None:
        bundle = demo_bundle()
        folder = Paths.from_environment().root / "demo" / "evaluation"
    else:
        found = find_bundle(options.bundle, root=Paths.from_environment().bundles)
        bundle, folder = open_bundle(found, trust=trust(options)), options.pictures
    pictures = _pictures(folder)
    if not pictures:
        raise ConfigError(f"no pictures under {folder}")
    return Pair(bundle.manifest.name, bundle, tuple(pictures))


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
    trusted = TrustStore(frozenset({key.public_hex}))
    try:
        return open_bundle(find_bundle(IMAGENET, root=paths.bundles), trust=trusted)
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

"""The models that are measured, and bundles of theirs with many rates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compiler.zoo import ZooModel, zoo

from hybridge.cli.console import StepProgress
from hybridge.cloud.compiler.bottleneck import read_bottleneck
from hybridge.cloud.compiler.build import build
from hybridge.cloud.compiler.cache import StepCache
from hybridge.cloud.compiler.recipe import ModelRecipe, PicturesRecipe, Recipe
from hybridge.shared.bundle import Bundle, find_bundle, open_bundle
from hybridge.shared.errors import ConfigError, UnknownModel
from hybridge.shared.paths import Paths
from hybridge.shared.signing import SigningKey, TrustStore

TENSOR_CODECS = (
    *("affine8", "affine4", "affine3"),
    *(f"rans-{tenths}" for tenths in (16, 20, 25, 30, 40)),
    *(f"klt-{quality}" for quality in (16, 20, 24, 26, 27, 28, 29, 30, 31, 32, 34, 36, 40)),
)
PICTURE_CODECS = (
    "raw",
    "png",
    *(f"jpeg-{quality}" for quality in (50, 75, 85, 90, 95, 98, 100)),
    *(f"webp-{quality}" for quality in (50, 75, 90, 95, 98, 100)),
    *(f"avif-{quality}" for quality in (40, 60, 75, 85, 92, 96)),
)
_SUFFIXES = (".jpg", ".jpeg", ".png")
_BUILD_PICTURES = 16


@dataclass(frozen=True)
class Pair:
    """A zoo model and where its pictures lie below the data folder."""

    model: str
    pictures: tuple[str, ...]
    held_out: tuple[str, ...]
    calibration: int

    @property
    def bundle(self) -> str:
        return f"rate-{self.model.replace('_', '-')}"


PAIRS = {
    "lite2": Pair("lite2", ("natural",), ("imagenet",), 200),
    "vgg16": Pair("vgg16", ("brain-mri/train",), ("brain-mri/test",), 48),
    "resnet50": Pair("resnet50", ("natural",), ("imagenet",), 48),
}


def pictures_below(folder: Path) -> list[Path]:
    """Every picture below a folder; ConfigError if there is none."""
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)
    if not found:
        raise ConfigError(f"{folder}: no pictures there; --data must hold it")
    return found


def evenly(files: Sequence[Path], most: int) -> list[Path]:
    """So many of them, spread over their order."""
    count = min(most, len(files))
    return [files[at * len(files) // count] for at in range(count)]


def held_out(pair: Pair, data: Path, *, most: int | None) -> list[Path]:
    """The pictures that no bundle of the pair has seen."""
    files = [file for name in pair.held_out for file in pictures_below(data / name)]
    return evenly(files, most or len(files))


def is_built(pair: Pair) -> bool:
    """Whether $HYBRIDGE_HOME has the pair's bundle."""
    try:
        find_bundle(pair.bundle, root=Paths.from_environment().bundles)
    except UnknownModel:
        return False
    return True


def bundle_of(pair: Pair, data: Path, *, bottleneck: Path | None = None) -> Bundle:
    """The pair's bundle from $HYBRIDGE_HOME, built there if it is not.

    `bottleneck` is what `hybridge compress` made for the pair's large model.
    """
    paths = Paths.from_environment()
    name = pair.bundle
    if bottleneck is not None:
        name += f"-{read_bottleneck(bottleneck).sha256[:8]}"
    key = SigningKey.load_or_create(paths.signing_key)
    trust = TrustStore(frozenset({key.public_hex}))
    try:
        return open_bundle(find_bundle(name, root=paths.bundles), trust=trust)
    except UnknownModel:
        folder = paths.root / "rate_accuracy" / pair.model
        recipe = _recipe(pair, zoo()[pair.model], data, folder)
        large = replace(recipe.large, bottlenecks=(bottleneck,) if bottleneck else ())
        recipe = replace(recipe, name=name, large=large)
    with StepProgress() as progress:
        path = build(
            recipe,
            root=paths.bundles,
            key=key,
            cache=StepCache(paths.build_cache),
            progress=progress,
        )
    return open_bundle(path, trust=trust)


def _recipe(pair: Pair, model: ZooModel, data: Path, folder: Path) -> Recipe:
    """All cuts of the staircase at many rates; its own table is short, we measure ourselves."""
    files = [file for name in pair.pictures for file in pictures_below(data / name)]
    chosen = evenly(files, pair.calibration + _BUILD_PICTURES)
    apart = set(evenly(chosen, _BUILD_PICTURES))
    for at, file in enumerate(chosen):
        use = "evaluation" if file in apart else "calibration"
        link = folder / use / f"{at:04}{file.suffix.lower()}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(file.resolve())
    (folder / "labels.txt").write_text("\n".join(model.labels()))
    return Recipe(
        name=pair.bundle,
        labels=folder / "labels.txt",
        light=ModelRecipe(model=model.light, preprocessing=model.light_preprocessing),
        large=ModelRecipe(model=model.source, preprocessing=model.preprocessing),
        pictures=PicturesRecipe(
            calibration=folder / "calibration", evaluation=folder / "evaluation"
        ),
        picture_codecs=("raw",),
        tensor_codecs=TENSOR_CODECS,
    )

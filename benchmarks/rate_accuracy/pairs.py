"""The models that are measured, and bundles of theirs with many rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from _common import progress
from compiler.zoo import ZooModel, mri_labels, zoo
from rate_accuracy import probe

from hybridge.cli.console import StepProgress
from hybridge.cloud.compiler.bottleneck import read_bottleneck
from hybridge.cloud.compiler.build import build
from hybridge.cloud.compiler.cache import StepCache
from hybridge.cloud.compiler.labels import Label, read_labels
from hybridge.cloud.compiler.recipe import ModelRecipe, PicturesRecipe, Recipe
from hybridge.shared.bundle import Bundle, find_bundle, open_bundle
from hybridge.shared.codec.picture import format_of, formats_here
from hybridge.shared.errors import ConfigError, UnknownModel
from hybridge.shared.paths import Paths
from hybridge.shared.signing import SigningKey, TrustStore

TENSOR_CODECS = (
    *("affine8", "affine4", "affine3"),
    *(
        f"{codec}-{tenths}"
        for codec in ("rans", "pco")
        for tenths in (4, 6, 8, 10, 12, 16, 20, 25, 30, 40)
    ),
    *(
        f"{codec}-{quality}"
        for codec in ("klt", "kltp")
        for quality in (16, 20, 24, 26, 27, 28, 29, 30, 31, 32, 34, 36, 40)
    ),
)
_PICTURE_CODECS = (
    "raw",
    "png",
    "jxl",
    *(f"jpeg-{quality}" for quality in (50, 75, 85, 90, 95, 98, 100)),
    *(f"webp-{quality}" for quality in (50, 75, 90, 95, 98, 100)),
    *(f"avif-{quality}" for quality in (40, 60, 75, 85, 92, 96)),
    *(f"jxl-{quality}" for quality in (50, 75, 85, 90, 95, 98)),
)
PICTURE_CODECS = tuple(
    codec for codec in _PICTURE_CODECS if codec == "raw" or format_of(codec) in formats_here()
)
_SUFFIXES = (".jpg", ".jpeg", ".png")
_BUILD_PICTURES = 16
_PROBE, _PROBE_PICTURES = "dinov2", 1500


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
    "dinov2": Pair("dinov2", ("brain-mri/train",), ("brain-mri/test",), 48),
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
    """The pictures that no bundle of the pair has seen: the first so many of a fixed order.

    Any first few lie evenly over all (van der Corput's sequence).
    """
    files = [file for name in pair.held_out for file in pictures_below(data / name)]
    order = sorted(range(len(files)), key=lambda at: f"{at:016b}"[::-1])
    return [files[at] for at in order[:most]]


def labels_of(files: Sequence[Path], classes: Sequence[str]) -> tuple[int | None, ...]:
    """The class of each picture by its folder's name, or by a labels.tsv beside it."""
    tables = {
        folder: read_labels(folder / "labels.tsv", classes=len(classes))
        for folder in {file.parent for file in files}
        if (folder / "labels.tsv").is_file()
    }
    return tuple(_label(file, tables.get(file.parent, {}), classes) for file in files)


def _label(file: Path, table: Mapping[str, Label], classes: Sequence[str]) -> int | None:
    if (found := table.get(file.name)) is not None:
        return found.index
    return classes.index(file.parent.name) if file.parent.name in classes else None


def is_built(pair: Pair) -> bool:
    """Whether $HYBRIDGE_HOME has the pair's bundle."""
    try:
        find_bundle(pair.bundle, root=Paths.from_environment().bundles)
    except UnknownModel:
        return False
    return True


def model_of(pair: Pair, data: Path) -> ZooModel:
    """The zoo's model, or the linear probe, which is learned if it is not here."""
    if pair.model != _PROBE:
        return zoo()[pair.model]
    file = _folder_of(pair) / "model.onnx"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        files = [each for name in pair.pictures for each in pictures_below(data / name)]
        chosen = evenly(files, _PROBE_PICTURES)
        labels = [label for label in labels_of(chosen, mri_labels()) if label is not None]
        made = file.with_suffix(".part")
        with progress("probe", len(chosen)) as advance:
            probe.write_probe(made, chosen, labels, classes=len(mri_labels()), on_picture=advance)
        made.replace(file)
    return replace(
        zoo()["vgg16"], name=_PROBE, file=lambda: file, preprocessing=probe.PREPROCESSING
    )


def _folder_of(pair: Pair) -> Path:
    return Paths.from_environment().root / "rate_accuracy" / pair.model


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
        folder = _folder_of(pair)
        recipe = _recipe(pair, model_of(pair, data), data, folder)
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

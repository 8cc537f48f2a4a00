"""Recipes: what `hybridge build` is asked to make, read from a TOML file or made in Python.

    name = "animals"
    labels = "labels.txt"              # one class a line, in the order of the models' outputs
    default_budget_ms = 250
    picture_codecs = ["raw", "jpeg-75"]    # optional, as the next
    tensor_codecs = ["affine8", "pco-25"]

    [light]
    model = "mypackage.models:light"   # MODULE:FUNCTION giving a torch module, or a .tflite file
    [light.preprocessing]
    size_px = 224
    crop_padding_px = 32

    [large]
    model = "large.onnx"               # an .onnx file, or MODULE:FUNCTION
    tails = ["float32", "int8"]        # optional: also float16; what a cloud can compute in
    bottlenecks = ["large.bottleneck.onnx"]  # optional: made by `hybridge compress`
    [large.preprocessing]
    size_px = 260
    crop_padding_px = 32

    [pictures]
    calibration = "pictures/calibration"
    evaluation = "pictures/evaluation"
    labels = "pictures/labels.tsv"     # optional: FILE <tab> CLASS INDEX
    inputs = "pictures/inputs.tsv"     # where the large model takes more than a picture

Paths are relative to the recipe.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from ...shared.codec import is_tensor_codec
from ...shared.codec.picture import Picture
from ...shared.codec.raw import Raw
from ...shared.deadline import check_budget_ms
from ...shared.errors import BudgetError, BuildError
from ...shared.manifest import Precision
from ...shared.objective import Objective
from ...shared.preprocess import PreprocessSpec
from .files import unreadable
from .sources import is_path

PICTURE_CODECS = (
    "raw",
    "png",
    "jpeg-50",
    "jpeg-75",
    "jpeg-90",
    "jpeg-95",
    "webp-50",
    "webp-75",
    "webp-90",
)
TENSOR_CODECS = ("affine8", "pco-40", "pco-30", "pco-25", "pco-20", "pco-15")
MIN_CALIBRATION_PICTURES = 8
_PICTURE_CODECS = (
    "raw, png, jxl, jpeg-1 to jpeg-100, webp-1 to webp-100, avif-1 to avif-100, jxl-1 to jxl-100"
)
_TENSOR_CODECS = (
    "affine2 to affine8, rans-1 to rans-80, pco-1 to pco-80, klt-1 to klt-80, kltp-1 to kltp-80, "
    "layers-5 to layers-80 in steps of 5"
)


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """A model, and what is done to a picture before it.

    `answer` names the output with a value per class where several could be it. `tails` are the
    precisions in which a cloud can serve the large model, each at the cost of its size on disk;
    `bottlenecks` what `hybridge compress` made for it, each a further cut.
    """

    model: str
    preprocessing: PreprocessSpec
    allow_pickle: bool = False
    answer: str = ""
    tails: tuple[Precision, ...] = (Precision.FLOAT32,)
    bottlenecks: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if Precision.FLOAT32 not in self.tails or len(set(self.tails)) != len(self.tails):
            raise ValueError("tails holds float32, the reference, and each precision once")


@dataclass(frozen=True, kw_only=True)
class PicturesRecipe:
    """Folders of pictures; those of `evaluation` are never used for calibration.

    `inputs` says what comes beside each picture where the large model takes more than one.
    `views` above 1 also evaluates that many crops and mirrorings of each evaluation picture. They
    refine the table, but its standard errors count pictures, not views. `table` above 0 measures
    plans on no more than so many pictures; the light model's confidence is measured on all.
    """

    calibration: Path
    evaluation: Path
    labels: Path | None = None
    inputs: Path | None = None
    views: int = 1
    table: int = 0

    def __post_init__(self) -> None:
        if self.table < 0:
            raise ValueError(f"table {self.table}: a number of pictures, or 0 for all")
        if not 1 <= self.views <= 8:
            raise ValueError(f"views {self.views}: 1 to 8 are possible")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a build depends on, the files it names included."""

    name: str
    labels: Path
    light: ModelRecipe
    large: ModelRecipe
    pictures: PicturesRecipe
    version: str = "1"
    default_budget_ms: float = 250.0
    objective: Objective = Objective.ACCURACY
    min_agreement: float | None = None
    max_cuts: int = 8
    picture_codecs: tuple[str, ...] = field(default=PICTURE_CODECS)
    tensor_codecs: tuple[str, ...] = field(default=TENSOR_CODECS)

    def __post_init__(self) -> None:
        if not 0 <= self.max_cuts <= 64:
            raise ValueError(f"max_cuts {self.max_cuts}: 0 to 64 are possible")
        if self.min_agreement is not None and not 0 < self.min_agreement < 1:
            raise ValueError(f"min_agreement {self.min_agreement:g}: a share between 0 and 1")
        if self.light.tails != (Precision.FLOAT32,) or self.light.bottlenecks:
            raise ValueError("tails and bottlenecks are the large model's; a light model has none")
        if Raw.name not in self.picture_codecs:
            raise ValueError("picture_codecs must hold raw, the only one that loses nothing else")
        _check_codecs("picture_codecs", self.picture_codecs, _is_picture_codec, _PICTURE_CODECS)
        _check_codecs("tensor_codecs", self.tensor_codecs, is_tensor_codec, _TENSOR_CODECS)
        try:
            check_budget_ms(self.default_budget_ms)
        except BudgetError as error:
            raise ValueError(f"default_budget_ms: {error}") from error


def _check_codecs(
    what: str, named: Sequence[str], known: Callable[[str], bool], possible: str
) -> None:
    """ValueError for one that there is not, which else would be found when half is built."""
    for at, name in enumerate(named):
        if not known(name):
            raise ValueError(f"{what} has {name!r}; possible are {possible} (docs/recipe.md)")
        if name in named[:at]:
            raise ValueError(f"{what} has {name!r} twice")


def _is_picture_codec(name: str) -> bool:
    return name == Raw.name or Picture.parse(name) is not None


def read_recipe(file: Path) -> Recipe:
    """The recipe of a TOML file; BuildError says what is wrong with it."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(file, error, named_by="") from error
    except UnicodeDecodeError as error:
        raise BuildError(f"{file} is no UTF-8 text ({error.reason}); name a recipe") from error
    except tomllib.TOMLDecodeError as error:
        raise BuildError(f"{file} is no TOML: {error}; docs/recipe.md shows a recipe") from error
    try:
        _refuse_unknown(values, Recipe, where="")
        recipe = msgspec.convert(values, Recipe, strict=True, dec_hook=_paths)
    except (msgspec.ValidationError, ValueError) as error:
        raise BuildError(f"{file}: {error}") from error
    return _relative_to(recipe, file.resolve().parent)


def _refuse_unknown(values: Mapping[str, Any], kind: type, *, where: str) -> None:
    """ValueError for an unknown key: a misspelt one would silently leave the default."""
    known = {each.name: each.type for each in fields(kind)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"unknown key {where + key!r}; known there: {', '.join(known)}")
        inner = known[key]
        if isinstance(value, dict) and isinstance(inner, type) and is_dataclass(inner):
            _refuse_unknown(value, inner, where=f"{where}{key}.")


def _paths(wanted: type, value: Any) -> Any:
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"expected {wanted.__name__}, got {value!r}")


def _relative_to(recipe: Recipe, folder: Path) -> Recipe:
    pictures = recipe.pictures
    return replace(
        recipe,
        labels=folder / recipe.labels,
        light=_model_relative_to(recipe.light, folder),
        large=_model_relative_to(recipe.large, folder),
        pictures=replace(
            pictures,
            calibration=folder / pictures.calibration,
            evaluation=folder / pictures.evaluation,
            labels=folder / pictures.labels if pictures.labels else None,
            inputs=folder / pictures.inputs if pictures.inputs else None,
        ),
    )


def _model_relative_to(model: ModelRecipe, folder: Path) -> ModelRecipe:
    model = replace(model, bottlenecks=tuple(folder / each for each in model.bottlenecks))
    return replace(model, model=str(folder / model.model)) if is_path(model.model) else model

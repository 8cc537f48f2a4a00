from pathlib import Path

import pytest

from hybridge.cloud.compiler import build as build_module
from hybridge.cloud.compiler.build import check_formats
from hybridge.cloud.compiler.recipe import Recipe, read_recipe
from hybridge.shared.errors import BuildError
from hybridge.shared.manifest import Precision
from hybridge.shared.preprocess import PreprocessSpec

RECIPE = """
name = "animals"
labels = "labels.txt"
[light]
model = "light.tflite"
[light.preprocessing]
size_px = 224
crop_padding_px = 32
[large]
model = "package.models:large"
[large.preprocessing]
size_px = 260
mean = [1, 2, 3]
[pictures]
calibration = "seen"
evaluation = "unseen"
"""


def read(folder: Path, text: str) -> Recipe:
    file = folder / "recipe.toml"
    file.write_text(text)
    return read_recipe(file)


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    recipe = read(tmp_path, RECIPE)
    assert recipe.labels == tmp_path / "labels.txt"
    assert recipe.light.model == str(tmp_path / "light.tflite")
    assert recipe.large.model == "package.models:large"
    assert recipe.pictures.calibration == tmp_path / "seen"
    assert recipe.light.preprocessing == PreprocessSpec(size_px=224, crop_padding_px=32)
    assert recipe.large.preprocessing.mean == (1, 2, 3)


def test_a_large_model_may_take_and_give_more(tmp_path: Path) -> None:
    asked = RECIPE.replace(':large"', ':large"\nanswer = "logits"') + 'inputs = "inputs.tsv"\n'
    recipe = read(tmp_path, asked)
    assert recipe.large.answer == "logits"
    assert recipe.pictures.inputs == tmp_path / "inputs.tsv"
    plain = read(tmp_path, RECIPE)
    assert (plain.large.answer, plain.pictures.inputs) == ("", None)


def test_tails_may_come_in_further_precisions(tmp_path: Path) -> None:
    asked = RECIPE.replace(':large"', ':large"\ntails = ["float32", "int8"]')
    assert read(tmp_path, asked).large.tails == (Precision.FLOAT32, Precision.INT8)
    assert read(tmp_path, RECIPE).large.tails == (Precision.FLOAT32,)


@pytest.mark.parametrize(
    ("section", "tails", "said"),
    [
        ("large", '["int8"]', "tails holds float32"),
        ("large", '["float32", "int8", "int8"]', "each precision once"),
        ("large", '["float32", "int4"]', "int4"),
        ("light", '["float32", "int8"]', "a light model has none"),
    ],
)
def test_tails_that_cannot_be_are_refused(
    tmp_path: Path, section: str, tails: str, said: str
) -> None:
    with pytest.raises(BuildError, match=said):
        read(tmp_path, RECIPE.replace(f"[{section}]\n", f"[{section}]\ntails = {tails}\n"))


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("crop_padding_px = 32", "crop_paddin_px = 32", "light.preprocessing.crop_paddin_px"),
        ('name = "animals"', 'name = "animals"\nbudget = 3', "unknown key 'budget'"),
        ("size_px = 260", "size_px = 9999", "9999"),
        ("[pictures]", "[pictures]\ntable = -1", "table -1: a number of pictures"),
        ("size_px = 260", 'size_px = "large"', "size_px"),
        ('labels = "labels.txt"', "", "labels"),
        ('name = "animals"', 'name = "animals"\ndefault_budget_ms = 0', "default_budget_ms"),
        ('name = "animals"', 'name = "animals', "recipe.toml"),
        ('name = "animals"', 'name = "animals"\npicture_codecs = ["png"]', "raw"),
        ('name = "animals"', 'name = "animals"\npicture_codecs = ["raw", "raw"]', "'raw' twice"),
        ('name = "animals"', 'name = "animals"\ntensor_codecs = ["pco-9", "pco-9"]', "twice"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, was: str, becomes: str, said: str) -> None:
    assert was in RECIPE
    with pytest.raises(BuildError, match=said):
        read(tmp_path, RECIPE.replace(was, becomes))


def test_a_format_that_nothing_here_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = RECIPE.replace('name = "animals"', 'name = "animals"\npicture_codecs = ["raw", "jxl"]')
    recipe = read(tmp_path, asked)
    check_formats(recipe)
    monkeypatch.setattr(build_module, "formats_here", frozenset)
    with pytest.raises(BuildError, match=r"'jxl'.* pip install \"hybridge\[pictures\]\""):
        check_formats(recipe)


def test_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"cannot read .*; check its path$"):
        read_recipe(tmp_path / "recipe.toml")


def test_a_file_that_is_no_recipe(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BuildError, match=r"model\.onnx is no UTF-8 text .*; name a recipe"):
        read_recipe(file)
    file.write_text("large = model")
    with pytest.raises(BuildError, match=r"model\.onnx is no TOML: .*docs/recipe\.md"):
        read_recipe(file)


NO_TENSOR_CODECS = (
    *("zip-9", "affine1", "affine9", "affine04", "affine-4", "rans-0", "rans-81", "rans-025"),
    *("rans-2.5", "pco-0", "pco-81", "klt-81", "kltp-0", "layers-24", "layers-85", "raw", "png"),
    "",
)
NO_PICTURE_CODECS = (
    *("jpeg", "jpeg-0", "jpeg-101", "jpeg-075", "png-9", "jxl-0", "jpegls", "rans-25"),
)


@pytest.mark.parametrize(
    ("codecs", "name", "possible"),
    [
        *(("tensor_codecs", name, "rans-1 to rans-80") for name in NO_TENSOR_CODECS),
        *(("picture_codecs", name, "avif-1 to avif-100") for name in NO_PICTURE_CODECS),
    ],
)
def test_a_codec_that_there_is_not_is_told_at_once(
    tmp_path: Path, codecs: str, name: str, possible: str
) -> None:
    asked = RECIPE.replace('name = "animals"', f'name = "animals"\n{codecs} = ["raw", "{name}"]')
    if codecs == "tensor_codecs":
        asked = asked.replace('"raw", ', '"affine8", ')
    with pytest.raises(BuildError, match=f"{codecs} has {name!r}; possible are .*{possible}"):
        read(tmp_path, asked)


def test_every_codec_can_be_asked_for(tmp_path: Path) -> None:
    named = ["affine2", "affine8", "rans-1", "rans-80", "pco-1", "pco-80", "klt-1", "klt-80"]
    named += ["kltp-1", "kltp-80", "layers-5", "layers-80"]
    asked = RECIPE.replace('name = "animals"', f'name = "animals"\ntensor_codecs = {named}')
    assert read(tmp_path, asked).tensor_codecs == tuple(named)

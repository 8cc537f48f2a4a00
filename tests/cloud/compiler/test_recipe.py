from pathlib import Path

import pytest

from hybridge.cloud.compiler.recipe import Recipe, read_recipe
from hybridge.shared.errors import BuildError
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


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("crop_padding_px = 32", "crop_paddin_px = 32", "light.preprocessing.crop_paddin_px"),
        ('name = "animals"', 'name = "animals"\nbudget = 3', "unknown key 'budget'"),
        ("size_px = 260", "size_px = 9999", "9999"),
        ("size_px = 260", 'size_px = "large"', "size_px"),
        ('labels = "labels.txt"', "", "labels"),
        ('name = "animals"', 'name = "animals"\ndefault_budget_ms = 0', "default_budget_ms"),
        ('name = "animals"', 'name = "animals', "recipe.toml"),
        ('name = "animals"', 'name = "animals"\npicture_codecs = ["png"]', "raw"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, was: str, becomes: str, said: str) -> None:
    assert was in RECIPE
    with pytest.raises(BuildError, match=said):
        read(tmp_path, RECIPE.replace(was, becomes))


def test_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot read"):
        read_recipe(tmp_path / "recipe.toml")

"""The parts of benchmarks/wan/mri_recipe.py that decide something."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from wan.mri_recipe import CLASSES, commands, part, write_recipe

from hybridge.cloud.compiler.pictures import open_pictures
from hybridge.cloud.compiler.recipe import read_recipe
from hybridge.shared.errors import ConfigError


@pytest.fixture
def train(tmp_path: Path) -> Path:
    for at, name in enumerate(CLASSES):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(8):
            pixels = np.full((9, 9, 3), 20 * at + number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{name}-{number}.jpg")
    return tmp_path / "train"


def test_no_picture_is_on_both_sides(train: Path) -> None:
    first = sorted((train / CLASSES[0]).iterdir())[0]
    shutil.copy(first, train / CLASSES[0] / "a-copy.jpg")
    parts = part(train, evaluation=6, calibration=3)
    assert (len(parts.evaluation), len(parts.calibration)) == (6, 3)
    contents = [{f.read_bytes() for f in side} for side in (parts.evaluation, parts.learned)]
    assert not contents[0] & contents[1]
    assert len(contents[0] | contents[1]) == 32
    assert set(parts.calibration) < set(parts.learned)


def test_more_pictures_for_evaluation_are_more_of_the_same(train: Path) -> None:
    few, many = (part(train, evaluation=count, calibration=2) for count in (3, 9))
    assert few.evaluation == many.evaluation[:3]


def test_the_recipe_can_be_read(train: Path, tmp_path: Path) -> None:
    parts = part(train, evaluation=6, calibration=3)
    file = write_recipe(parts, tmp_path / "pair", teacher=Path("/models/vgg16.onnx"))
    recipe = read_recipe(file)
    assert (recipe.name, recipe.large.model) == ("brain-mri", "/models/vgg16.onnx")
    evaluation = open_pictures(
        recipe.pictures.evaluation, labels=recipe.pictures.labels, classes=4, minimum=6
    )
    for picture, label in zip(evaluation.files, evaluation.labels, strict=True):
        assert label is not None
        assert picture.name.startswith(CLASSES[label])
    distill, build = commands(file, epochs=2)
    assert distill.startswith(f"hybridge distill {file} --pictures {file.parent / 'learned'} ")
    assert build == f"hybridge build {file}"
    with pytest.raises(ConfigError, match="is not empty"):
        write_recipe(parts, tmp_path / "pair", teacher=Path("/models/vgg16.onnx"))


def test_what_cannot_be_parted(train: Path) -> None:
    with pytest.raises(ConfigError, match="holds 32 pictures, at least 34"):
        part(train, evaluation=15, calibration=2)
    with pytest.raises(ConfigError, match="must hold the folders"):
        part(train.parent, evaluation=1, calibration=1)

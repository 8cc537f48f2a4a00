"""`hybridge distill`: what a recipe and options make of it, and what is said otherwise."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from hybridge.cli.main import main

from .. import bundles

Capture = pytest.CaptureFixture[str]

RECIPE = f"""
name = "small"
labels = "labels.txt"
[light]
model = "student.tflite"
preprocessing = {{ size_px = {bundles.SIZE_PX} }}
[large]
model = "{bundles.__name__}:large"
preprocessing = {{ size_px = {bundles.SIZE_PX} }}
[pictures]
calibration = "calibration"
evaluation = "evaluation"
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYBRIDGE_HOME", str(tmp_path / "home"))
    for name, seeds in (
        ("learned", range(90)), ("calibration", range(8)), ("evaluation", range(200, 206)),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        for seed in seeds:
            Image.fromarray(bundles.picture(seed)).save(tmp_path / name / f"{seed}.png")
    (tmp_path / "labels.txt").write_text("\n".join("abcde"))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path / "recipe.toml"


def distil(recipe: Path, *options: str) -> int:
    return main(["distill", str(recipe), "--pictures", str(recipe.parent / "learned"), *options])


def test_a_student_lies_where_the_recipe_wants_it(recipe: Path, capsys: Capture) -> None:
    backbone = f"{bundles.__name__}:light"
    options = ("--backbone", backbone, "--epochs", "1", "--held-out", "0.3")
    assert distil(recipe, *options, "--batch", "16", "--json") == 0
    said = capsys.readouterr()
    card = json.loads(said.out)
    assert (recipe.parent / "student.tflite").stat().st_size == card["student_bytes"]
    assert json.loads((recipe.parent / "student.card.json").read_text()) == card
    assert card["settings"]["student"]["backbone"] == backbone
    assert card["settings"]["training"]["batch"] == 16
    assert card["evaluation"]["pictures"] == 6
    assert "epoch 1/1, loss" in said.err
    # Again, for people: nothing is left to do but to say it.
    assert distil(recipe, *options, "--batch", "16") == 0
    said = capsys.readouterr()
    assert "held out" in said.out
    assert f"temperature {card['temperature']:g}" in said.out
    assert "epoch 1/1" not in said.err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--output", "student.onnx"), 65, "student.onnx is no .tflite file"),
        (("--width", "0"), 65, "width 0: 0.1 to 4 are possible"),
        (("--views", "17"), 65, "views 17: 1 to 16 are possible"),
        (("--epochs", "0"), 65, "0 epochs teach a net of random weights nothing"),
        (("--learning-rate", "nan"), 65, "learning rate nan"),
        (("--backbone", "nowhere:light"), 65, "No module named 'nowhere'"),
    ],
)
def test_what_cannot_work_is_told(
    recipe: Path, capsys: Capture, options: tuple[str, ...], code: int, message: str
) -> None:
    assert distil(recipe, *options) == code
    assert message in capsys.readouterr().err


def test_a_pickled_teacher_is_taken_where_the_recipe_trusts_it(
    recipe: Path, capsys: Capture
) -> None:
    torch.save(bundles.large(), recipe.parent / "large.pt")
    trusting = RECIPE.replace(f"{bundles.__name__}:large", "large.pt")
    recipe.write_text(trusting)
    assert distil(recipe, "--width", "0") == 65
    assert "large.pt is a pickle" in capsys.readouterr().err
    recipe.write_text(trusting.replace("[pictures]", "allow_pickle = true\n[pictures]"))
    assert distil(recipe, "--width", "0") == 65
    assert "width 0: 0.1 to 4 are possible" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_cuda_device_that_is_not_there(recipe: Path, capsys: Capture) -> None:
    assert distil(recipe, "--device", "cuda") == 78
    assert "no CUDA device" in capsys.readouterr().err


def test_pictures_are_needed(recipe: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["distill", str(recipe)])
    assert "--pictures" in capsys.readouterr().err

"""`hybridge compress`: what a recipe and options make of it, and what is said otherwise."""

import json
from pathlib import Path

import pytest
from PIL import Image

from hybridge.cli.main import main
from hybridge.cloud.compiler.bottleneck import read_bottleneck

from .. import bundles

Capture = pytest.CaptureFixture[str]

RECIPE = f"""
name = "small"
labels = "labels.txt"
[light]
model = "{bundles.__name__}:light"
preprocessing = {{ size_px = {bundles.SIZE_PX} }}
[large]
model = "{bundles.__name__}:large"
BOTTLENECKS
preprocessing = {{ size_px = {bundles.SIZE_PX} }}
[pictures]
calibration = "calibration"
evaluation = "evaluation"
"""
SMALL = ("--width", "4", "--channels", "2", "--decoder-width", "8", "--decoder-blocks", "0")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYBRIDGE_HOME", str(tmp_path / "home"))
    for name, seeds in (
        ("learned", range(50)), ("calibration", range(8)), ("evaluation", range(200, 204)),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        for seed in seeds:
            Image.fromarray(bundles.picture(seed)).save(tmp_path / name / f"{seed}.png")
    (tmp_path / "labels.txt").write_text("\n".join("abcde"))
    return tmp_path


def compress(folder: Path, *options: str, bottlenecks: str = "") -> int:
    (folder / "recipe.toml").write_text(RECIPE.replace("BOTTLENECKS", bottlenecks))
    return main(
        ["compress", str(folder / "recipe.toml"), "--pictures", str(folder / "learned"), *options]
    )


def test_a_bottleneck_lies_where_the_recipe_wants_it(folder: Path, capsys: Capture) -> None:
    options = ("--epochs", "1", "--held-out", "0.4", "--batch", "16", "--bytes", "20", "--json")
    assert compress(folder, *SMALL, *options, bottlenecks='bottlenecks = ["b.onnx"]') == 0
    said = capsys.readouterr()
    card = json.loads(said.out)
    assert json.loads((folder / "b.card.json").read_text()) == card
    assert card["settings"]["bottleneck"]["sent_bytes"] == 20
    assert card["settings"]["bottleneck"]["channels"] == 2
    assert read_bottleneck(folder / "b.onnx").facts.replaces == card["replaces"]
    assert "epoch 1/1, loss" in said.err
    assert " bytes" in said.err


def test_where_to_write_has_to_be_said(folder: Path, capsys: Capture) -> None:
    assert compress(folder) != 0
    assert "names 0 bottlenecks" in capsys.readouterr().err
    assert compress(folder, "--output", str(folder / "b.bin")) != 0
    assert "is no .onnx file; write [large] bottlenecks" in capsys.readouterr().err
    assert compress(folder, "--epochs", "0", "--output", str(folder / "b.onnx")) != 0
    assert "0 epochs teach a bottleneck nothing" in capsys.readouterr().err
    assert compress(folder, "--bytes", "1", "--output", str(folder / "b.onnx")) != 0
    assert "16 to 1e+06 are possible" in capsys.readouterr().err


def test_what_to_do_next_is_told_whole(folder: Path, capsys: Capture) -> None:
    output = folder / "b.onnx"
    options = ("--epochs", "1", "--held-out", "0.4", "--batch", "16", "--output", str(output))
    assert compress(folder, *SMALL, *options) == 0
    *_, card, following = capsys.readouterr().out.splitlines()
    assert card.startswith(f"{output}: ")
    assert card.endswith("best epoch 1 of 1")
    assert following == f'next: [large] bottlenecks = ["{output}"] in the recipe, hybridge build'


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--threads", "0"), "--threads 0: 1 or more are possible"),
        (("--threads", "-2"), "--threads -2: 1 or more are possible"),
        (("--output", "FOLDER"), "is a folder; name a file in it"),
    ],
)
def test_what_cannot_work_is_told_at_once(
    folder: Path, capsys: Capture, options: tuple[str, ...], said: str
) -> None:
    (folder / "there.onnx").mkdir()
    given = [str(folder / "there.onnx") if each == "FOLDER" else each for each in options]
    output = () if "--output" in given else ("--output", str(folder / "b.onnx"))
    assert compress(folder, *SMALL, *output, *given) != 0
    told = capsys.readouterr().err
    assert said in told
    assert "reading the large model" not in told


def test_settings_are_looked_at_before_models(folder: Path, capsys: Capture) -> None:
    assert compress(folder, "--bytes", "nan", "--output", str(folder / "b.onnx")) != 0
    told = capsys.readouterr().err
    assert "bytes nan: 16 to 1e+06 are possible" in told
    assert "reading the large model" not in told

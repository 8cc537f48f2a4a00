import argparse
import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from hybridge.cli import console
from hybridge.cli.build import size_bytes
from hybridge.cli.main import main

from .. import bundles
from ..bundles import Small

Capture = pytest.CaptureFixture[str]
COUNT = 3

RECIPE = f"""
name = "{bundles.NAME}"
labels = "labels.txt"
default_budget_ms = 5000
picture_codecs = ["raw", "jpeg-75"]
tensor_codecs = ["affine4", "layers-30"]
max_cuts = 2
[light]
model = "{bundles.__name__}:light"
preprocessing = {{ size_px = {bundles.SIZE_PX}, crop_padding_px = 2 }}
[large]
model = "{bundles.__name__}:large"
preprocessing = {{ size_px = {bundles.SIZE_PX}, crop_padding_px = 2 }}
[pictures]
calibration = "calibration"
evaluation = "others"
"""

KILLED = """
import os, signal, sys
from hybridge.cli.console import StepProgress
from hybridge.cli.main import main

told = StepProgress.__call__

def killed(self, step, done, total, **more):
    if (step, done) == ("measuring every plan", 2):
        os.kill(os.getpid(), signal.SIGKILL)
    told(self, step, done, total, **more)

StepProgress.__call__ = killed
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("512", 512), ("500M", 5 * 10**8), ("1.5 GB", 15 * 10**8)]
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1G", "1X", "1GG"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write 500M or 20G"):
        size_bytes(text)


def test_a_recipe_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYBRIDGE_HOME", str(tmp_path / "home"))
    assert main(["build", str(tmp_path / "gone.toml")]) == 65
    assert "cannot read" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


@pytest.fixture
def recipe(
    small: Small,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
) -> Path:
    """The small bundle's recipe, measured on other pictures: all else was made with `small`."""
    assert pytestconfig.cache is not None
    made = pytestconfig.cache.mkdir("bundle") / bundles.compiler_version()
    (home / "build").mkdir()
    for step in made.iterdir():
        if not step.name.startswith(("table-", ".")):
            shutil.copy(step, home / "build" / step.name)
    bundles.small_recipe(tmp_path)
    (tmp_path / "others").mkdir()
    for seed in range(300, 300 + COUNT):
        Image.fromarray(bundles.picture(seed)).save(tmp_path / "others" / f"{seed}.png")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path / "recipe.toml"


def test_a_build_counts_what_it_measures(
    recipe: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    terminal = Console(file=said, force_terminal=True, width=160)
    monkeypatch.setattr(console, "notes", terminal)
    assert main(["build", str(recipe), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"]["made"] == ["table"]
    last = said.getvalue().rpartition("measuring every plan")[2].partition("\n")[0]
    assert f"{COUNT}/{COUNT}" in last


def test_where_nobody_watches_a_long_step_says_now_and_then_how_far_it_is(
    recipe: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "LINE_EVERY_S", 0.0)
    assert main(["build", str(recipe)]) == 0
    said = capsys.readouterr().err.partition("- measuring every plan\n")[2].splitlines()
    assert said[: COUNT + 1] == [f"  {done}/{COUNT}" for done in range(COUNT + 1)]


def test_killed_while_it_measures_a_build_carries_on(recipe: Path, capsys: Capture) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, "build", recipe],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert killed.stderr.endswith("- measuring every plan\n")
    assert main(["build", str(recipe), "--json"]) == 0
    built = json.loads(capsys.readouterr().out)
    assert built["steps"]["made"] == ["table"]
    assert built["steps"]["reused"][-1] == "temperature"
    root = Path(built["path"])
    assert [each.name for each in root.parent.iterdir()] == [root.name]

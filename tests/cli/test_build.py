import argparse
from pathlib import Path

import pytest

from hybridge.cli.build import size_bytes
from hybridge.cli.main import main


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

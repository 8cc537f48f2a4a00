from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hybridge.cli.main import main
from hybridge.shared.signing import SigningKey

from ..cloud.bundles import CUT
from ..inspected import NAME, ROWS, write_inspected

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def tiny(key: SigningKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The inspected bundle in a home whose own key signed it."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "signing.key").write_bytes(key.private.private_bytes_raw())
    monkeypatch.setenv("HYBRIDGE_HOME", str(tmp_path))
    return write_inspected(tmp_path / "bundles", key)


def inspected(capsys: Capture, *arguments: str) -> dict[str, Any]:
    assert main(["inspect", NAME, "--json", *arguments]) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


def test_for_people_it_is_tables(tiny: Path, capsys: Capture) -> None:
    assert main(["inspect", str(tiny), "--budget", "100", "--link", "wifi"]) == 0
    said = capsys.readouterr().out
    for plan in ROWS:
        assert str(plan) in said
    for words in ("Cuts: 1 kept of 2", "static/min_max", "What if: 100 ms, 8.5 ms round trip",
                  "taken: the best agreement that fits", "On this link, by budget"):  # fmt: skip
        assert words in said, words


def test_everything_for_programs(tiny: Path, capsys: Capture) -> None:
    said = inspected(capsys, "--budget", "100", "--link", "20,50")
    assert (said["bundle"], said["format"], said["large"]["operators"]) == (NAME, 2, 7)
    assert {plan["plan"]: plan["front"] for plan in said["plans"]} == {
        str(plan): True for plan in ROWS
    }
    assert [cut["fate"] for cut in said["cuts"]] == ["no fewer bytes than a later cut", "kept"]
    assert said["build"]["conversions"]["large"]["ended_by"] == "NonZero"
    what_if = said["what_if"]
    assert (what_if["rtt_ms"], what_if["mbps"], what_if["fits"]) == (20.0, 50.0, True)
    assert what_if["taken"] == "cloud:raw"
    assert what_if["runner_up"] == f"split:{CUT}/int8/affine8"
    assert what_if["margin"].startswith("1.3 points better and ")
    assert what_if["ladder"][0] == {
        "from_ms": 5.0, "plan": "local", "layers": None, "agreement": 0.8,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "plan"),
    [
        (["--budget", "5"], "local"),
        (["--budget", "3"], "local"),
        (["--budget", "1000", "--machine", "raspberry-pi-zero"], "cloud:raw"),
        (["--budget", "3000", "--link", "151,0.001"], f"split:{CUT}/int8/affine8"),
    ],
)
def test_which_plan_wins(tiny: Path, capsys: Capture, arguments: list[str], plan: str) -> None:
    assert inspected(capsys, *arguments)["what_if"]["taken"] == plan


def test_a_quicker_cloud(tiny: Path, capsys: Capture) -> None:
    for speed, wanted_ms in (("1", 20.0), ("4", 5.0)):
        plans = inspected(capsys, "--cloud-speed", speed)["what_if"]["plans"]
        assert {each["plan"]: each["cloud_ms"] for each in plans}["cloud:raw"] == wanted_ms


def test_the_page(tiny: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "page.html"
    assert main(["inspect", NAME, "--html", str(file), "--link", "3g"]) == 0
    assert "round trip 151 ms" in file.read_text()
    assert str(file) in capsys.readouterr().err.replace("\n", "")


def test_without_a_profile_it_says_what_to_do(tiny: Path, capsys: Capture) -> None:
    for file in (tiny / "profiles").iterdir():
        file.unlink()
    assert main(["inspect", NAME]) == 0
    assert "hybridge profile" in capsys.readouterr().out
    assert inspected(capsys)["what_if"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nothing"], 66, "unknown model: no bundle 'nothing'"),
        ([NAME, "--budget", "0"], 65, "bad latency budget: 0 ms"),
        ([NAME, "--cloud-speed", "0"], 78, "must be above 0"),
        ([NAME, "--machine", "amiga"], 78, "no machine of the name 'amiga'"),
        ([NAME, "--html", "/nowhere/page.html"], 78, "cannot write /nowhere/page.html: No such"),
    ],
)
def test_what_cannot_be_shown(
    tiny: Path, capsys: Capture, arguments: list[str], code: int, words: str
) -> None:
    assert main(["inspect", *arguments]) == code
    assert words in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("link", ["5g", "20", "20,0", "-1,5", "nan,5", "20,inf", "a,b"])
def test_what_is_no_link(tiny: Path, capsys: Capture, link: str) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", NAME, f"--link={link}"])
    assert "is no link; give a round trip" in capsys.readouterr().err.replace("\n", " ")


def test_an_altered_bundle(tiny: Path, capsys: Capture) -> None:
    (tiny / "manifest.json").write_text("{}")
    assert main(["inspect", NAME]) == 65
    assert "hybridge:" in capsys.readouterr().err


def test_a_device_without_onnx_shows_all_but_the_graph(
    tiny: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inspected(capsys)["large"]["multiply_adds"] == 8 * 16 * 48 + 128 * 5
    monkeypatch.setattr("hybridge.cli.inspect.find_spec", lambda name: None)
    assert inspected(capsys)["large"]["multiply_adds"] is None
    assert main(["inspect", NAME]) == 0
    assert "Cuts: 1 kept of 2" in capsys.readouterr().out

"""`hybridge privacy`, and what other commands make of its figures."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hybridge.cli.main import main
from hybridge.shared.bundle import Bundle
from hybridge.shared.privacy import FILE, Privacy, encode_privacy, read_privacy

from .. import exposed
from ..bundles import CLOUD, NAME, SPLIT, Small, picture

pytestmark = pytest.mark.usefixtures("one_thread")

Capture = pytest.CaptureFixture[str]
QUICK = ("--epochs", "1", "--views", "1", "--held-out", "0.3", "--size-px", "16", "--width", "8")


@pytest.fixture
def public(tmp_path: Path) -> Path:
    return folder(tmp_path / "public", range(1000, 1090))


def folder(path: Path, seeds: range) -> Path:
    path.mkdir()
    for seed in seeds:
        Image.fromarray(picture(seed)).save(path / f"{seed}.png")
    return path


def said(capsys: Capture, *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def known(bundle: Bundle, small: Small) -> Privacy:
    found = read_privacy(bundle, trust=small.trust)
    assert found is not None
    return found


def test_figures_are_kept_and_a_page_is_written(
    bundle: Bundle, small: Small, public: Path, tmp_path: Path, capsys: Capture
) -> None:
    victims = folder(tmp_path / "victims", range(2000, 2010))
    page = tmp_path / "page.html"
    attack = ("privacy", NAME, "--pictures", str(public), "--victims", str(victims), *QUICK)
    made = said(capsys, *attack, "--html", str(page))
    (found,) = made["attacks"]
    assert [each["plan"] for each in found["splits"]] == [str(SPLIT)]
    assert found["splits"][0]["likeness"]["pictures"] == 10
    assert list(found["pictures"]) == [str(CLOUD)]
    assert "give away" in page.read_text()
    assert [a.victims for a in known(bundle, small).attacks] == [found["victims"]]
    # The same again changes nothing; another one is kept beside it.
    before = (bundle.path / FILE).read_bytes()
    assert main([*attack]) == 0
    told = capsys.readouterr()
    assert (bundle.path / FILE).read_bytes() == before
    assert "epoch 1/1" not in told.err
    assert "lower bound" in told.out
    assert str(SPLIT) in told.out
    said(capsys, *attack, "--seed", "5")
    assert len(known(bundle, small).attacks) == 2
    # What is known can be looked at.
    assert main(["privacy", NAME]) == 0
    assert capsys.readouterr().out.count("10 pictures rebuilt at 16") == 2


def test_a_tenth_is_kept_apart(bundle: Bundle, small: Small, tmp_path: Path) -> None:
    public = folder(tmp_path / "public", range(1000, 1150))
    assert main(["privacy", NAME, "--pictures", str(public), *QUICK]) == 0
    (attack,) = known(bundle, small).attacks
    assert attack.guess.pictures >= 10
    assert attack.learned.learned + attack.learned.held_out + attack.guess.pictures == 150


def test_nothing_is_known_at_first(bundle: Bundle, capsys: Capture) -> None:
    assert main(["privacy", NAME]) == 0
    assert "Nobody has measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--html", "page.html"), 78, "--html needs --pictures"),
        (("--pictures", "nowhere"), 65, f"no folder of pictures at {Path.cwd()}/nowhere; check"),
    ],
)
def test_what_cannot_work_is_told(
    bundle: Bundle, capsys: Capture, options: tuple[str, ...], code: int, message: str
) -> None:
    assert main(["privacy", NAME, *options]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--size-px", "5"), "size 5: 11 to 1024 are possible"),
        (("--html", "no/such/page.html"), "cannot write no/such/page.html: name a file"),
        (("--epochs", "0"), "epochs 0"),
        ((), "at least 16 of each are needed"),
    ],
)
def test_settings_that_cannot_work_are_told(
    bundle: Bundle, public: Path, capsys: Capture, option: tuple[str, ...], message: str
) -> None:
    assert main(["privacy", NAME, "--pictures", str(public), *option]) == 65
    told = capsys.readouterr().err
    assert message in told
    assert "epoch" not in told.replace("epochs 0", "")


def test_altered_figures_are_told_before_anything_is_measured(
    bundle: Bundle, public: Path, capsys: Capture
) -> None:
    (bundle.path / FILE).write_text("{}")
    assert main(["privacy", NAME, "--pictures", str(public), *QUICK]) == 65
    told = capsys.readouterr().err
    assert "privacy.json" in told
    assert "epoch" not in told


def test_plans_and_tables_show_them(bundle: Bundle, small: Small, capsys: Capture) -> None:
    measured = exposed.privacy(bundle.manifest, {SPLIT: 0.45})
    plan = ("plan", NAME, "--budget", "1000", "--rtt", "5", "--mbps", "10")
    told = {row["plan"]: row for row in said(capsys, *plan, "--max-similarity", "0.5")["plans"]}
    assert "nobody has measured" in told[str(SPLIT)]["reason"]
    assert told["local"]["reason"].startswith("taken")
    (bundle.path / FILE).write_bytes(encode_privacy(measured, key=small.key))
    told = {row["plan"]: row for row in said(capsys, *plan, "--max-similarity", "0.5")["plans"]}
    assert told[str(SPLIT)]["reason"].startswith("taken")
    assert told[str(SPLIT)]["similarity"] == 0.45
    assert "the picture itself" in told[str(CLOUD)]["reason"]
    told = {row["plan"]: row for row in said(capsys, *plan, "--max-similarity", "0.4")["plans"]}
    assert "alike to 0.45, 0.40 is allowed" in told[str(SPLIT)]["reason"]
    shown = said(capsys, "inspect", NAME)
    assert {row["plan"]: row["gives_away"] for row in shown["plans"]} == {
        "local": 0.0,
        str(SPLIT): 0.45,
        str(CLOUD): 1.0,
    }
    assert len(shown["privacy"]["attacks"]) == 1
    assert main(["inspect", NAME]) == 0
    assert "gives away" in capsys.readouterr().out


def test_without_figures_tables_say_nothing_of_them(bundle: Bundle, capsys: Capture) -> None:
    assert main(["inspect", NAME]) == 0
    assert "gives away" not in capsys.readouterr().out
    shown = said(capsys, "inspect", NAME)
    assert shown["privacy"] is None
    assert {row["plan"]: row["gives_away"] for row in shown["plans"]}[str(SPLIT)] is None

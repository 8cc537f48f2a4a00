"""The parts of benchmarks/guarantee.py that compute something, and one run on a small bundle."""

import json
from pathlib import Path

import pytest
from guarantee import Pair, interval, look, main
from PIL import Image

from hybridge.shared.cascade import Level, Threshold

from ..bundles import Small, picture

LEVEL = Threshold(Level(0.05), 0.9, 100, 60, 0)


def pairs(agreeing: int, differing: int, *, unsure: int = 0) -> list[Pair]:
    return [
        *[Pair(0.95, True)] * agreeing,
        *[Pair(0.9, False)] * differing,
        *[Pair(0.89, False)] * unsure,
    ]


@pytest.mark.parametrize(
    ("agreeing", "differing", "verdict"),
    [(200, 0, "kept"), (40, 1, "too few to say"), (80, 20, "broken")],
)
def test_what_is_said_of_a_level(agreeing: int, differing: int, verdict: str) -> None:
    found = look(LEVEL, pairs(agreeing, differing, unsure=30))
    assert found.verdict == verdict
    assert (found.local, found.differed) == (agreeing + differing, differing)
    assert found.pictures == found.local + 30
    assert (found.alarmed_after is not None) == (verdict == "broken")


def test_where_nothing_stands() -> None:
    found = look(LEVEL, pairs(0, 0, unsure=5))
    assert (found.rate, found.verdict) == (0.0, "too few to say")


def test_the_interval() -> None:
    low, high = interval(5, 100)
    assert (low, high) == (pytest.approx(0.01643, abs=1e-4), pytest.approx(0.11283, abs=1e-4))


def test_a_run(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "signing.key").write_bytes(small.key.private.private_bytes_raw())
    monkeypatch.setenv("HYBRIDGE_HOME", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    for seed in range(6):
        Image.fromarray(picture(seed)).save(tmp_path / "pictures" / f"{seed}.png")
    arguments = [str(small.bundle.path), "--pictures", str(tmp_path / "pictures"), "--json"]
    assert main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["figures"]["pictures"] == 6
    assert said["figures"]["levels"] == []  # four pictures promise nothing
    assert len(said["figures"]["refused"]) == 5
    agreed = sum(
        small.light(picture(s)).argmax() == small.large(picture(s)).argmax() for s in range(6)
    )
    assert said["figures"]["agreement"] == pytest.approx(agreed / 6)

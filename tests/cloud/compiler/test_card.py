import json
from pathlib import Path

import pytest

from hybridge.cloud.compiler.card import card_path, card_temperature
from hybridge.shared.errors import BuildError

SHA256 = "a" * 64


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return tmp_path / "student.tflite"


def write(student: Path, **changes: object) -> None:
    card = {"format": 1, "student_sha256": SHA256, "temperature": 1.5, "more": "for people"}
    card_path(student).write_text(json.dumps(card | changes))


def test_the_temperature_is_read(student: Path) -> None:
    write(student)
    assert card_temperature(student, sha256=SHA256) == 1.5
    assert card_path(student).name == "student.card.json"


def test_a_model_needs_no_card(student: Path) -> None:
    assert card_temperature(student, sha256=SHA256) is None


def test_the_card_of_another_model_is_refused(student: Path) -> None:
    write(student)
    with pytest.raises(BuildError, match=r"card of another model than student\.tflite; remove it"):
        card_temperature(student, sha256="b" * 64)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"temperature": 0}, "> 0"), ({"temperature": "warm"}, "float"), ({"format": 2}, "format 2")],
)
def test_a_card_that_makes_no_sense_is_named(
    student: Path, changes: dict[str, object], said: str
) -> None:
    write(student, **changes)
    with pytest.raises(BuildError, match=rf"student\.card\.json.*{said}"):
        card_temperature(student, sha256=SHA256)


def test_a_damaged_card_is_named(student: Path) -> None:
    card_path(student).write_text("{")
    with pytest.raises(BuildError, match=r"student\.card\.json.*distil student\.tflite again"):
        card_temperature(student, sha256=SHA256)

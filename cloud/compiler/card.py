"""The card beside a distilled student: what the build, and people, should know of it.

STUDENT.tflite has STUDENT.card.json; a build takes the temperature of a light model from there.
"""

from pathlib import Path
from typing import Annotated

import msgspec

from ...shared.errors import BuildError

FORMAT = 1


class Temperature(msgspec.Struct, frozen=True, kw_only=True):
    """What a build reads of a card; all else in it is for people and reports."""

    format: int
    student_sha256: str
    temperature: Annotated[float, msgspec.Meta(gt=0)]


def card_path(student: Path) -> Path:
    """Where the card of a .tflite file lies."""
    return student.with_suffix(".card.json")


def card_temperature(student: Path, *, sha256: str) -> float | None:
    """The temperature on the card of a light model; None if it has no card.

    BuildError if the card is damaged, or is another model's.
    """
    file = card_path(student)
    try:
        card = msgspec.json.decode(file.read_bytes(), type=Temperature)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise BuildError(f"{file}: {error}; remove it, or distil {student.name} again") from error
    if card.format != FORMAT:
        raise BuildError(f"{file} has format {card.format}; this version reads {FORMAT}")
    if card.student_sha256 != sha256:
        raise BuildError(
            f"{file} is the card of another model than {student.name}; remove it, or distil again"
        )
    return card.temperature

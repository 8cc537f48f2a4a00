"""All that is known of a student, in one JSON file beside it."""

from typing import Any

import msgspec

from ..compiler.card import FORMAT
from .comparison import Comparison


class TeacherFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Whose answers were learned; `sha256` is the large model's in a bundle's provenance."""

    model: str
    sha256: str


class PictureFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was learned from; `sha256` is of all pictures, in the order of their names."""

    sha256: str
    learned: int
    held_out: int
    views: int


class StudentCard(msgspec.Struct, frozen=True, kw_only=True):
    """`held_out` chose the epoch and the temperature; `evaluation` saw nothing of the student.

    `float_agreement` is the student's on the held-out pictures before it became int8.
    """

    student_sha256: str
    student_bytes: int
    parameters: int
    temperature: float
    teacher: TeacherFacts
    pictures: PictureFacts
    settings: dict[str, Any]
    epochs: int
    best_epoch: int
    float_agreement: float
    held_out: Comparison
    evaluation: Comparison | None
    tools: dict[str, str]
    format: int = FORMAT

    def encoded(self) -> bytes:
        """Canonical JSON."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic")) + b"\n"

"""A student beside its teacher on pictures that neither of its trainings used."""

import math

import msgspec
import numpy as np

from ...shared.answer import to_probabilities
from ...shared.manifest import OutputKind, Rate
from ..compiler.temperature import calibration_error, negative_log_likelihood
from .answers import Floats
from .lessons import Indices

CONFIDENT = 0.9
SIGNIFICANT = 0.05


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """How well the confidence tells that the teacher agrees; the best of both is zero."""

    calibration_error: float
    negative_log_likelihood: float


class AgainstLabels(msgspec.Struct, frozen=True, kw_only=True):
    """Both against labels, which no training saw.

    `p_value` is that of the exact sign test on the pictures where just one of them is right
    (McNemar 1947): how likely so large a difference is if they were equally good.
    """

    student: Rate
    teacher: Rate
    only_student_right: int
    only_teacher_right: int
    p_value: float

    @property
    def verdict(self) -> str:
        """Who is better, where that is more than chance would bring."""
        ahead = self.only_student_right - self.only_teacher_right
        if ahead == 0:
            return "both are as often right"
        first, second = ("student", "teacher") if ahead > 0 else ("teacher", "student")
        if self.p_value < SIGNIFICANT:
            return f"the {first} beats its {second}"
        return f"the {first} is ahead of its {second} by no more than chance brings"


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of pictures; `agreement_confident` counts those where the teacher is 0.9 sure."""

    pictures: int
    agreement: Rate
    agreement_confident: Rate | None
    before: Calibration
    after: Calibration
    labels: AgainstLabels | None = None


def compare(
    student: Floats,
    teacher: Floats,
    *,
    temperature: float,
    labels: tuple[int | None, ...] = (),
) -> Comparison:
    """Logits [n, classes] of both; the labels that are known count."""
    answers = teacher.argmax(axis=1)
    agreed = student.argmax(axis=1) == answers
    sure = to_probabilities(teacher, OutputKind.LOGITS).max(axis=1) >= CONFIDENT
    known = np.array([i for i, label in enumerate(labels) if label is not None], np.int64)
    truth = np.array([label for label in labels if label is not None], np.int64)
    return Comparison(
        pictures=len(student),
        agreement=Rate.of(int(agreed.sum()), len(agreed)),
        agreement_confident=(
            Rate.of(int(agreed[sure].sum()), int(sure.sum())) if sure.any() else None
        ),
        before=_calibration(student, answers, 1.0),
        after=_calibration(student, answers, temperature),
        labels=_against_labels(student[known], teacher[known], truth) if len(known) else None,
    )


def _calibration(student: Floats, answers: Indices, temperature: float) -> Calibration:
    kind = OutputKind.LOGITS
    return Calibration(
        calibration_error=round(calibration_error(student, answers, kind, temperature), 6),
        negative_log_likelihood=round(
            negative_log_likelihood(student, answers, kind, temperature), 6
        ),
    )


def _against_labels(student: Floats, teacher: Floats, truth: Indices) -> AgainstLabels:
    ours, theirs = student.argmax(axis=1) == truth, teacher.argmax(axis=1) == truth
    only_student, only_teacher = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return AgainstLabels(
        student=Rate.of(int(ours.sum()), len(truth)),
        teacher=Rate.of(int(theirs.sum()), len(truth)),
        only_student_right=only_student,
        only_teacher_right=only_teacher,
        p_value=sign_test(only_student, only_teacher),
    )


def sign_test(wins: int, losses: int) -> float:
    """Two-sided: the chance of a split at least as uneven if both sides were equally likely.

    >>> sign_test(8, 2)
    0.109375
    """
    count = wins + losses
    tail = sum(math.comb(count, k) for k in range(max(wins, losses), count + 1))
    return float(f"{min(1.0, 2 * tail / 2**count):.6g}")

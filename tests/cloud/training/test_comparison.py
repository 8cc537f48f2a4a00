import numpy as np
import pytest

from hybridge.cloud.training.comparison import AgainstLabels, compare, sign_test
from hybridge.shared.manifest import Rate

TEACHER = np.array([[9, 0], [9, 0], [0, 9], [0, 1]], np.float32)
STUDENT = np.array([[1, 0], [0, 1], [0, 1], [1, 0]], np.float32)


def test_agreement_over_all_and_where_the_teacher_is_sure() -> None:
    found = compare(STUDENT, TEACHER, temperature=1.0)
    assert (found.pictures, found.agreement.value) == (4, 0.5)
    sure = found.agreement_confident
    assert sure is not None
    assert (sure.samples, sure.value) == (3, pytest.approx(2 / 3, abs=1e-6))
    assert found.labels is None


def test_no_figure_where_the_teacher_is_never_sure() -> None:
    assert compare(STUDENT, TEACHER / 100, temperature=1.0).agreement_confident is None


def test_only_known_labels_count() -> None:
    found = compare(STUDENT, TEACHER, temperature=1.0, labels=(0, 1, None, 0)).labels
    assert found is not None
    assert (found.student.value, found.student.samples) == (1.0, 3)
    assert found.teacher.value == pytest.approx(1 / 3, abs=1e-6)
    assert (found.only_student_right, found.only_teacher_right) == (2, 0)


@pytest.mark.parametrize(
    ("student", "teacher", "said"),
    [
        (9, 1, "the student beats its teacher"),
        (1, 9, "the teacher beats its student"),
        (2, 0, "the student is ahead of its teacher by no more than chance brings"),
        (3, 5, "the teacher is ahead of its student by no more than chance brings"),
        (4, 4, "both are as often right"),
    ],
)
def test_who_is_ahead_by_chance_beats_nobody(student: int, teacher: int, said: str) -> None:
    right = Rate.of(5, 10)
    found = AgainstLabels(
        student=right,
        teacher=right,
        only_student_right=student,
        only_teacher_right=teacher,
        p_value=sign_test(student, teacher),
    )
    assert found.verdict == said


def test_the_temperature_changes_confidence_and_no_answer() -> None:
    found = compare(STUDENT * 5, TEACHER, temperature=1e6)
    assert found.agreement.value == 0.5
    # Sure of everything and right on half; then sure of nothing (0.5) and right on half.
    assert found.before.calibration_error == pytest.approx(0.4933, abs=1e-3)
    assert found.after.calibration_error == pytest.approx(0.0, abs=1e-3)


def test_sign_test_of_even_and_of_empty_splits() -> None:
    assert (sign_test(3, 3), sign_test(0, 0)) == (1.0, 1.0)
    assert sign_test(0, 10) == sign_test(10, 0) == pytest.approx(2 / 1024, rel=1e-5)

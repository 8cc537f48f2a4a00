import numpy as np
import pytest

from hybridge.cloud.training.comparison import compare, sign_test

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


def test_only_known_labels_count_and_the_winner_is_named() -> None:
    found = compare(STUDENT, TEACHER, temperature=1.0, labels=(0, 1, None, 0)).labels
    assert found is not None
    assert (found.student.value, found.student.samples) == (1.0, 3)
    assert found.teacher.value == pytest.approx(1 / 3, abs=1e-6)
    assert (found.only_student_right, found.only_teacher_right) == (2, 0)
    assert found.student_wins
    lost = compare(STUDENT, TEACHER, temperature=1.0, labels=(0, 0, 1, 1)).labels
    assert lost is not None
    assert not lost.student_wins


def test_the_temperature_changes_confidence_and_no_answer() -> None:
    found = compare(STUDENT * 5, TEACHER, temperature=1e6)
    assert found.agreement.value == 0.5
    # Sure of everything and right on half; then sure of nothing (0.5) and right on half.
    assert found.before.calibration_error == pytest.approx(0.4933, abs=1e-3)
    assert found.after.calibration_error == pytest.approx(0.0, abs=1e-3)


def test_sign_test_of_even_and_of_empty_splits() -> None:
    assert (sign_test(3, 3), sign_test(0, 0)) == (1.0, 1.0)
    assert sign_test(0, 10) == sign_test(10, 0) == pytest.approx(2 / 1024, rel=1e-5)

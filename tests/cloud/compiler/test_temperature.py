import numpy as np
import pytest

from hybridge.cloud.compiler.temperature import (
    Floats,
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from hybridge.shared.answer import to_probabilities
from hybridge.shared.manifest import OutputKind

LOGITS, PROBABILITIES = OutputKind.LOGITS, OutputKind.PROBABILITIES


def honest(count: int, *, seed: int = 0) -> tuple[Floats, np.ndarray]:
    """Logits, and answers drawn with just the probabilities they claim."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, 4)).astype(np.float32)
    claimed = to_probabilities(logits, LOGITS)
    answers = np.array([random.choice(4, p=each / each.sum()) for each in claimed.astype(float)])
    return logits, answers


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_factor_by_which_a_model_exaggerates_is_found(factor: float) -> None:
    logits, answers = honest(4000)
    found = fit_temperature(logits * np.float32(factor), answers, LOGITS)
    assert found == pytest.approx(factor, rel=0.1)


def test_calibration_makes_confidence_mean_what_it_says() -> None:
    logits, answers = honest(4000)
    sharp = logits * 3
    found = fit_temperature(sharp, answers, LOGITS)
    before, after = (calibration_error(sharp, answers, LOGITS, t) for t in (1.0, found))
    assert before > 0.1
    assert after < 0.03
    likelihoods = [negative_log_likelihood(sharp, answers, LOGITS, t) for t in (1.0, found)]
    assert likelihoods[1] < likelihoods[0]


def test_probabilities_are_as_good_as_logits() -> None:
    logits, answers = honest(500)
    given = to_probabilities(logits * 2, LOGITS)
    assert fit_temperature(given, answers, PROBABILITIES) == pytest.approx(
        fit_temperature(logits * 2, answers, LOGITS), rel=1e-2
    )


def test_eight_right_answers_make_no_model_infinitely_sure() -> None:
    logits = np.tile(np.array([[2.0, 0.0]], np.float32), (8, 1))
    assert 0.3 < fit_temperature(logits, np.zeros(8, np.int64), LOGITS) < 1


def test_without_pictures_nothing_changes() -> None:
    assert fit_temperature(np.empty((0, 3), np.float32), np.empty(0, np.int64), LOGITS) == 1.0


def test_calibration_error_by_hand() -> None:
    given = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]], np.float32)
    # 0.9 sure and right on both, 0.6 sure and right on none: half of 0.1 and half of 0.6.
    found = calibration_error(given, np.array([0, 0, 1, 1]), PROBABILITIES, 1.0)
    assert found == pytest.approx(0.35, abs=1e-6)

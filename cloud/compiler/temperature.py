"""Confidence that means what it says: one temperature for a light model's answers.

Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017): dividing the logits by a number
found by least negative log-likelihood on pictures that were not learned from. What is right here is
what the large model answers: a cascade asks how likely the light model agrees with it.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ...shared.answer import to_probabilities
from ...shared.manifest import OutputKind

Floats = npt.NDArray[np.float32]

_LEAST, _MOST = 0.05, 20.0
_PRIOR_SD = 0.5
_SECTIONS = 60
_BINS = 15
_TINY = 1e-12


def fit_temperature(outputs: Floats, answers: npt.NDArray[np.int64], kind: OutputKind) -> float:
    """The temperature of least negative log-likelihood, to four digits.

    `outputs` [n, classes] are a model's, `answers` [n] the right classes. A Gaussian prior on
    ln T (mean 0, sd 0.5) stands in for the pictures that a small set lacks: where all of eight
    answers are right, likelihood alone would make the model infinitely sure.
    """
    if len(outputs) == 0:
        return 1.0

    def cost(log_temperature: float) -> float:
        right = negative_log_likelihood(outputs, answers, kind, math.exp(log_temperature))
        return len(outputs) * right + (log_temperature / _PRIOR_SD) ** 2 / 2

    found = math.exp(_least(cost, math.log(_LEAST), math.log(_MOST)))
    return float(f"{found:.4g}")


def negative_log_likelihood(
    outputs: Floats, answers: npt.NDArray[np.int64], kind: OutputKind, temperature: float
) -> float:
    """The mean over the pictures, in nats."""
    given = to_probabilities(outputs, kind, temperature=temperature)
    chosen = given[np.arange(len(given)), answers].astype(np.float64)
    return float(-np.log(np.maximum(chosen, _TINY)).mean())


def calibration_error(
    outputs: Floats, answers: npt.NDArray[np.int64], kind: OutputKind, temperature: float
) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al., equation 3)."""
    given = to_probabilities(outputs, kind, temperature=temperature)
    confidence = given.max(axis=1)
    right = given.argmax(axis=1) == answers
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    error = 0.0
    for each in np.unique(bins):
        inside = bins == each
        error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(error)


def _least(cost: Callable[[float], float], low: float, high: float) -> float:
    """Golden-section search (Kiefer 1953): where a function of one valley is least."""
    ratio = (math.sqrt(5) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    cost_a, cost_b = cost(a), cost(b)
    for _ in range(_SECTIONS):
        if cost_a <= cost_b:
            high, b, cost_b = b, a, cost_a
            a = high - ratio * (high - low)
            cost_a = cost(a)
        else:
            low, a, cost_a = a, b, cost_b
            b = low + ratio * (high - low)
            cost_b = cost(b)
    return (low + high) / 2

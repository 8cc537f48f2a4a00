"""Exact binomial tails, and the Clopper-Pearson bounds that they give. Pure.

Terms are taken relative to the largest one, each from its neighbour by their ratio, and divided by
the sum of all: no logarithms of factorials, whose rounding grows with n. Relative error below 1e-11
for n up to 100,000; what lies below 1e-60 of the largest term is left out.
"""

import math

import numpy as np
import numpy.typing as npt

_NEGLIGIBLE = math.log(1e-60)
_HALVINGS = 60


def at_most(hits: int, samples: int, rate: float) -> float:
    """P(X <= hits) for X binomial with these samples and this rate.

    >>> at_most(1, 2, 0.5)
    0.75
    """
    _check(hits, samples)
    if not 0 <= rate <= 1:
        raise ValueError(f"{rate} is no rate")
    if hits == samples or rate == 0:
        return 1.0
    if rate == 1:
        return 0.0
    if hits == 0:
        return math.exp(samples * math.log1p(-rate))
    first, terms = _terms(samples, rate)
    return float(terms[: max(0, hits - first + 1)].sum() / terms.sum())


def upper_bound(hits: int, samples: int, *, delta: float) -> float:
    """The rate that is exceeded with probability at most delta (Clopper and Pearson 1934).

    >>> round(upper_bound(0, 299, delta=0.05), 4)
    0.01
    """
    _check(hits, samples)
    if hits == samples:
        return 1.0
    if hits == 0:
        return -math.expm1(math.log(delta) / samples)
    low, high = hits / samples, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(hits, samples, middle) > delta else (low, middle)
    return high


def fewest_samples(rate: float, delta: float) -> int:
    """How many without a single hit show that the rate is below this one: (1 - rate)^n <= delta.

    >>> fewest_samples(0.01, 0.05)
    299
    """
    return max(1, math.ceil(math.log(delta) / math.log1p(-rate)))


def _check(hits: int, samples: int) -> None:
    if not 0 <= hits <= samples or samples < 1:
        raise ValueError(f"{hits} of {samples} is no count")


def _terms(samples: int, rate: float) -> tuple[int, npt.NDArray[np.float64]]:
    """The first count whose probability matters, and the probabilities from it on, to a factor."""
    mode = min(samples, int((samples + 1) * rate))
    odds = rate / (1 - rate)
    reach = _reach(samples, rate)
    below = np.arange(mode, max(0, mode - reach), -1, dtype=np.float64)
    above = np.arange(mode, min(samples, mode + reach), dtype=np.float64)
    down = np.cumprod(below / ((samples - below + 1) * odds))
    up = np.cumprod((samples - above) * odds / (above + 1))
    return mode - len(down), np.concatenate([down[::-1], [1.0], up])


def _reach(samples: int, rate: float) -> int:
    """How far from the largest term others matter: Bernstein's bound, solved for the distance."""
    variance = samples * rate * (1 - rate)
    third = -_NEGLIGIBLE / 3
    return 2 + math.ceil(third + math.sqrt(third * third - 2 * _NEGLIGIBLE * variance))

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridge.shared.agreement import AgreementCurve
from hybridge.shared.calibration import Calibration

PAIRS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80)


@settings(deadline=None)
@given(PAIRS)
def test_it_ascends_and_is_never_sure(pairs: list[tuple[float, bool]]) -> None:
    curve = AgreementCurve.of(Calibration.of(pairs))
    assert list(curve.confidences) == sorted(set(curve.confidences))
    assert list(curve.rates) == sorted(set(curve.rates))
    # Jeffreys' prior: half a picture of each kind more
    least = 0.5 / (len(pairs) + 1)
    assert least <= curve.rates[0]
    assert curve.rates[-1] <= 1 - least


@settings(deadline=None)
@given(PAIRS, st.floats(0, 1), st.floats(0, 1))
def test_more_confident_is_no_less_likely(
    pairs: list[tuple[float, bool]], one: float, other: float
) -> None:
    curve = AgreementCurve.of(Calibration.of(pairs))
    assert curve.at(min(one, other)) <= curve.at(max(one, other))


@settings(deadline=None)
@given(PAIRS)
def test_without_shrinking_it_would_be_isotonic_regression(
    pairs: list[tuple[float, bool]],
) -> None:
    # Min-max formula: the fit at a point is the largest, over starts at or before it, of the
    # smallest mean, over ends at or after it. The curve's blocks are those of the fit or larger.
    calibration = Calibration.of(pairs)
    groups = calibration.groups[::-1]
    means = np.full((len(groups), len(groups)), np.nan)
    for start in range(len(groups)):
        for end in range(start, len(groups)):
            pictures = sum(group[1] for group in groups[start : end + 1])
            differed = sum(group[2] for group in groups[start : end + 1])
            means[start, end] = 1 - differed / pictures
    fit = [max(means[start, at:].min() for start in range(at + 1)) for at in range(len(groups))]
    curve = AgreementCurve.of(calibration)
    edges = {group[0] for at, group in enumerate(groups) if at == 0 or fit[at] > fit[at - 1] + 1e-9}
    assert set(curve.confidences) <= edges


def test_it_is_close_to_the_truth() -> None:
    random = np.random.default_rng(3)
    confidences = random.uniform(size=20_000)
    agreed = random.uniform(size=len(confidences)) < confidences**2
    curve = AgreementCurve.of(
        Calibration.of(zip(confidences.tolist(), agreed.tolist(), strict=True))
    )
    for confidence in np.linspace(0.05, 0.95, 19):
        assert curve.at(float(confidence)) == pytest.approx(confidence**2, abs=0.05)


def test_a_few_pictures_that_agree_claim_little() -> None:
    curve = AgreementCurve.of(Calibration(agreed=(0.8, 0.9), differed=()))
    assert curve.at(0.99) == curve.at(0.0) == pytest.approx(2.5 / 3)


def test_a_curve_of_nothing() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        AgreementCurve.of(Calibration(agreed=(), differed=()))

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.assurance import Assurance
from hybridge.shared.agreement import AgreementCurve
from hybridge.shared.calibration import Calibration
from hybridge.shared.cascade import threshold
from hybridge.shared.errors import ConfigError

SURE = Calibration(agreed=(0.9,) * 400, differed=(0.2,) * 20)
"""Of 400 pictures it was sure of, none differed."""
confidences = st.floats(0, 1)
calibrations = st.lists(st.tuples(confidences, st.booleans()), max_size=200).map(Calibration.of)
shares = st.floats(1e-9, 1 - 1e-9)


@given(confidences, shares)
def test_without_calibration_confidence_means_nothing(confidence: float, least: float) -> None:
    for found in (None, Calibration(agreed=(), differed=())):
        assurance = Assurance(0.83, found)
        assert assurance.agrees(confidence) == 0.83
        assert not assurance.enough(confidence, least)
        assert assurance.share_enough(least) == 0.0


@given(calibrations, confidences, confidences, shares)
def test_the_surer_the_more_it_agrees_and_the_sooner_it_is_enough(
    calibration: Calibration, one: float, other: float, least: float
) -> None:
    assurance = Assurance(0.5, calibration)
    low, high = sorted((one, other))
    assert 0.0 <= assurance.agrees(low) <= assurance.agrees(high) <= 1.0
    assert assurance.enough(low, least) <= assurance.enough(high, least)
    assert 0.0 <= assurance.share_enough(least) <= 1.0
    if len(calibration):
        assert assurance.agrees(one) == AgreementCurve.of(calibration).at(one)


@given(calibrations, confidences, shares, shares)
def test_who_asks_for_more_gets_no_less(
    calibration: Calibration, confidence: float, one: float, other: float
) -> None:
    assurance = Assurance(0.5, calibration)
    high = max(one, other)
    assert assurance.enough(confidence, high) <= assurance.enough(confidence, min(one, other))
    if assurance.enough(confidence, high):
        found = threshold(calibration, alpha=1.0 - high)
        assert found.lets_stand(confidence)


def test_nobody_asked() -> None:
    assurance = Assurance(0.8, SURE)
    assert not assurance.enough(1.0, None)
    assert assurance.share_enough(None) == 0.0


def test_a_threshold_lets_stand_what_is_sure() -> None:
    assurance = Assurance(0.8, SURE)
    assert assurance.enough(0.9, 0.98)
    assert not assurance.enough(0.89, 0.98)
    assert assurance.share_enough(0.98) == pytest.approx(400 / 420)
    assert assurance.require(0.98).confidence == 0.9


@pytest.mark.parametrize("least", [0.9999, 0.99995, 0.999999999, 1 - 1e-16])
def test_what_the_pictures_cannot_show_is_never_enough(least: float) -> None:
    """Also where rounding would make it a promise of everything, or of nothing."""
    assurance = Assurance(0.8, SURE)
    assert not assurance.enough(1.0, least)
    assert assurance.share_enough(least) == 0.0
    with pytest.raises(ConfigError):
        assurance.require(least)


def test_next_to_nothing_is_no_less() -> None:
    assert Assurance(0.8, SURE).enough(0.9, 1e-9)


def test_callers_cannot_fill_the_memory() -> None:
    assurance = Assurance(0.8, SURE)
    for at in range(1, 30_000):
        assurance.enough(0.5, 0.5 + at * 1e-7)
    assert len(assurance._thresholds) <= 31


def test_delta_is_kept_to() -> None:
    assert Assurance(0.8, SURE, delta=0.05).enough(0.9, 0.99)
    assert not Assurance(0.8, SURE, delta=1e-6).enough(0.9, 0.99)


@given(calibrations, st.floats(0.01, 0.99), st.floats(0, 1), st.floats(0, 1))
def test_what_mending_the_least_sure_mends(
    calibration: Calibration, average: float, one: float, other: float
) -> None:
    """All that differ among all, none among none, and the first ones no less than others."""
    mended = Assurance(average, calibration).mended
    assert mended(0.0) == 0.0
    assert mended(1.0) == pytest.approx(1.0 - average)
    few, many = sorted((one, other))
    assert 0.0 <= mended(few) <= mended(many) + 1e-12


def test_those_that_differ_are_among_the_least_sure() -> None:
    mended = Assurance(400 / 420, SURE).mended
    assert mended(10 / 420) == pytest.approx(10 / 420)
    assert mended(20 / 420) == mended(0.5) == pytest.approx(20 / 420)
    assert Assurance(0.75).mended(0.5) == pytest.approx(0.125)

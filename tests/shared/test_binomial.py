from decimal import Decimal, localcontext
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridge.shared.binomial import at_most, fewest_samples, upper_bound


def exactly(hits: int, samples: int, rate: Fraction) -> Fraction:
    """By its definition, in whole numbers."""
    terms = (comb(samples, k) * rate**k * (1 - rate) ** (samples - k) for k in range(hits + 1))
    return sum(terms, Fraction(0))


@settings(deadline=None)
@given(st.integers(1, 120), st.data())
def test_it_is_the_sum_of_its_terms(samples: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, samples))
    rate = Fraction(data.draw(st.integers(0, 1000)), 1000)
    wanted = float(exactly(hits, samples, rate))
    assert at_most(hits, samples, float(rate)) == pytest.approx(wanted, rel=1e-11, abs=1e-300)


def slowly(hits: int, samples: int, rate: float) -> float:
    """Term by term from the first, with 40 digits."""
    with localcontext(prec=40):
        share = Decimal(rate)
        term = (1 - share) ** samples
        total = term
        for k in range(hits):
            term *= (samples - k) * share / ((k + 1) * (1 - share))
            total += term
        return float(total)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 100_000), st.floats(1e-5, 0.2), st.floats(-8, 8))
def test_large_ones_are_right_to_nine_digits(samples: int, rate: float, sigmas: float) -> None:
    spread = (samples * rate * (1 - rate)) ** 0.5
    hits = min(samples, max(0, round(samples * rate + sigmas * spread)))
    wanted = slowly(hits, samples, rate)
    assert at_most(hits, samples, rate) == pytest.approx(wanted, rel=1e-9)


def test_far_tails_keep_their_digits() -> None:
    wanted = float(exactly(100, 2000, Fraction(1, 8)))
    assert 1e-30 < wanted < 1e-20
    assert at_most(100, 2000, 0.125) == pytest.approx(wanted, rel=1e-10)


@settings(deadline=None)
@given(st.integers(1, 5000), st.floats(1e-6, 0.5), st.data())
def test_the_bound_is_where_the_tail_is_delta(
    samples: int, delta: float, data: st.DataObject
) -> None:
    hits = data.draw(st.integers(0, samples - 1))
    bound = upper_bound(hits, samples, delta=delta)
    assert at_most(hits, samples, bound) == pytest.approx(delta, rel=1e-6)


def test_all_hits_bound_nothing() -> None:
    assert upper_bound(7, 7, delta=0.05) == 1.0


@settings(deadline=None)
@given(st.floats(1e-4, 0.9), st.floats(1e-6, 0.9))
def test_the_fewest_samples_are_enough_and_one_less_is_not(rate: float, delta: float) -> None:
    fewest = fewest_samples(rate, delta)
    assert (1 - rate) ** fewest <= delta * (1 + 1e-9)
    assert fewest == 1 or (1 - rate) ** (fewest - 1) > delta


@pytest.mark.parametrize(("hits", "samples"), [(-1, 3), (4, 3), (0, 0)])
def test_what_is_no_count(hits: int, samples: int) -> None:
    with pytest.raises(ValueError, match="is no count"):
        at_most(hits, samples, 0.5)
    with pytest.raises(ValueError, match="is no count"):
        upper_bound(hits, samples, delta=0.5)


def test_what_is_no_rate() -> None:
    with pytest.raises(ValueError, match="is no rate"):
        at_most(1, 2, 1.5)
    assert (at_most(1, 2, 0.0), at_most(1, 2, 1.0), at_most(2, 2, 1.0)) == (1.0, 0.0, 1.0)

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridge.shared.calibration import (
    Calibration,
    decode_calibration,
    encode_calibration,
    rounded_down,
)
from hybridge.shared.errors import BundleError

PAIRS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60)
GOLDEN = b'{"agreed":[0.25,0.999999],"differed":[0.5],"format":1}\n'


@settings(deadline=None)
@given(PAIRS)
def test_it_comes_back(pairs: list[tuple[float, bool]]) -> None:
    calibration = Calibration.of(pairs)
    assert decode_calibration(encode_calibration(calibration)) == calibration
    assert len(calibration) == len(pairs)


def test_its_bytes_are_frozen() -> None:
    pairs = [(0.9999999, True), (0.5, False), (0.25, True)]
    assert encode_calibration(Calibration.of(pairs)) == GOLDEN
    assert decode_calibration(GOLDEN) == Calibration.of(pairs)


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(0, 10**6))
def test_rounding_changes_no_comparison(confidence: float, step: int) -> None:
    threshold = step / 10**6
    assert (rounded_down(confidence) >= threshold) == (confidence >= threshold)


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_six_digits_stay(step: int) -> None:
    assert rounded_down(step / 10**6) == step / 10**6


@settings(deadline=None)
@given(PAIRS)
def test_groups_hold_every_picture_once(pairs: list[tuple[float, bool]]) -> None:
    groups = Calibration.of(pairs).groups
    confidences = [confidence for confidence, _, _ in groups]
    assert confidences == sorted(set(confidences), reverse=True)
    for confidence, pictures, differed in groups:
        same = [agreed for given, agreed in pairs if rounded_down(given) == confidence]
        assert (pictures, differed) == (len(same), same.count(False))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "has format 2; this version reads 1"),
        ({"agreed": [0.9, 0.2]}, "do not ascend"),
        ({"agreed": [1.5]}, "<= 1"),
        ({"differed": ["0.5"]}, "Expected `float`"),
        ({"more": 1}, "unknown field"),
    ],
)
def test_what_is_none(change: dict[str, object], words: str) -> None:
    encoded = json.dumps(json.loads(GOLDEN) | change).encode()
    with pytest.raises(BundleError, match=words):
        decode_calibration(encoded)

"""Against the graph that devices run."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hybridge.cloud.resize import prepare
from hybridge.shared.preprocess import Interpolation

from .compiler.test_preprocess import noise, resize, spec_of


@pytest.mark.parametrize("interpolation", Interpolation)
@pytest.mark.parametrize("antialias", [False, True])
@settings(max_examples=15, deadline=None)
@example(height=1, width=1, crop=8)
@example(height=1, width=300, crop=None)
@example(height=24, width=24, crop=None)
@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    crop=st.sampled_from([None, 8]),
)
def test_it_is_what_devices_do(
    interpolation: Interpolation, antialias: bool, height: int, width: int, crop: int | None
) -> None:
    spec = spec_of(interpolation=interpolation, antialias=antialias, crop_padding_px=crop)
    picture = noise(height=height, width=width)
    made, device = prepare(picture, spec), resize(picture, spec)
    assert (made.shape, made.dtype) == (device.shape, np.uint8)
    difference = np.abs(made.astype(int) - device)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.2  # halves fall to either side, more often in thin ones

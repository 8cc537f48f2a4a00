import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.cloud.compiler.litert import Floats
from hybridge.cloud.compiler.quantization.ranges import Histogram, Ranges, See, collect, observe

from ..conftest import Converted


def histogram_of(*tensors: Floats) -> Histogram:
    def show(see: See) -> None:
        for tensor in tensors:
            see("t", tensor)

    return collect(show).histograms["t"]


def with_an_outlier() -> Floats:
    values = np.abs(np.random.default_rng(0).normal(size=(50, 40_000))).astype(np.float32)
    values[3, 7] = 12.0
    return values


def squared_error(values: Floats, ends: tuple[float, float]) -> float:
    """Of real 8-bit codes, counted value by value."""
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    step = (high - low) / 255
    codes = np.clip(np.rint((values.astype(np.float64) - low) / step), 0, 255)
    return float(((low + step * codes - values) ** 2).sum())


def test_extremes_are_exact_although_large_tensors_are_sampled() -> None:
    values = np.zeros((1, 600, 600), np.float32)
    values[0, 123, 457], values[0, 321, 3] = 3.25, -1.5
    assert histogram_of(values).range(Ranges.MIN_MAX) == (-1.5, 3.25)


def test_all_inputs_count() -> None:
    histogram = histogram_of(np.float32([[0, 1]]), np.float32([[-4, 0.5]]))
    assert histogram.range(Ranges.MIN_MAX) == (-4, 1)
    assert histogram.counts.sum() == 4


def test_masks_of_minus_infinity_do_not_count() -> None:
    histogram = histogram_of(np.float32([[-np.inf, 0.5, 1.0]]))
    assert histogram.range(Ranges.MIN_MAX) == (0.5, 1.0)


def test_a_tensor_that_never_changes_has_a_range_of_no_width() -> None:
    histogram = histogram_of(np.full((3, 4), 2.0, np.float32))
    assert {histogram.range(ranges) for ranges in Ranges} == {(2.0, 2.0)}


def test_a_percentile_leaves_out_so_many() -> None:
    values = np.linspace(0, 1, 40_000, dtype=np.float32)
    low, high = histogram_of(values).range(Ranges.PERCENTILE_999)
    assert low == pytest.approx(0.001, abs=1e-3)
    assert high == pytest.approx(0.999, abs=1e-3)


def test_least_squared_error_leaves_out_an_outlier() -> None:
    values = with_an_outlier()
    histogram = histogram_of(*values)
    clipped, whole = histogram.range(Ranges.MSE), histogram.range(Ranges.MIN_MAX)
    assert clipped[0] == whole[0]
    assert clipped[1] < 6
    assert squared_error(values, clipped) < squared_error(values, whole) / 2


@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=200))
def test_every_range_lies_within_what_was_seen(values: list[float]) -> None:
    tensor = np.array(values, np.float32)
    histogram = histogram_of(tensor)
    slack = 1e-6 * (1 + abs(histogram.low) + abs(histogram.high))
    for ranges in Ranges:
        low, high = histogram.range(ranges)
        assert tensor.min() - slack <= low <= high <= tensor.max() + slack


def test_a_model_shows_its_activations_and_no_weights(converted: Converted) -> None:
    seen = observe(converted.float32, converted.tensors[:2])
    first = max(float(tensor.max()) for tensor in converted.tensors[:2])
    assert any(histogram.high == first for histogram in seen.histograms.values())
    statistics = seen.statistics(Ranges.MIN_MAX)
    assert statistics.keys() == seen.histograms.keys()
    assert all(each["min"].size == 1 for each in statistics.values())
    assert not any("weight" in name for name in statistics)

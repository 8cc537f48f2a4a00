"""The int8 grid of what a float head sends."""

import numpy as np
import pytest

from hybridge.cloud.compiler.checking import as_sent, dequantize, grid_of
from hybridge.cloud.compiler.onnx_graph import Wire


@pytest.mark.parametrize("size", [1e-30, 2e-9, 1.0, 3e4])
def test_a_grid_fits_values_of_any_size(size: float) -> None:
    values = np.linspace(-0.5, 1.5, 101, dtype=np.float32)[None] * np.float32(size)
    scale, zero_point = grid_of([values])
    codes = as_sent([values], Wire((101,), scale=scale, zero_point=zero_point))
    assert (codes.min(), codes.max()) == (-128, 127)
    real = dequantize(codes, scale=scale, zero_point=zero_point)
    np.testing.assert_allclose(real[0], values[0], atol=0.6 * scale)


@pytest.mark.parametrize("only", [0.0, 1e-45])
def test_a_tensor_that_is_nothing_has_a_grid(only: float) -> None:
    scale, _ = grid_of([np.full((1, 4), only, np.float32)])
    assert scale > 0

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.devices.litert import LiteRtModel
from hybridge.devices.pixel_input import PixelInput, codes_of_levels, takes_pixels, value_range
from hybridge.shared.preprocess import PreprocessSpec

from ..bundles import SIZE_PX, Small, picture

SPEC = PreprocessSpec(size_px=4)
BY_CHANNEL = PreprocessSpec(size_px=4, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)

triples = st.tuples(*[st.floats(0, 255, width=32)] * 3)
widths = st.tuples(*[st.floats(0.5, 255, width=32)] * 3)


def real(codes: npt.NDArray[np.generic], scale: float, zero_point: int) -> npt.NDArray[np.float64]:
    return scale * (codes.astype(np.float64) - zero_point)


@pytest.mark.parametrize("spec", [SPEC, BY_CHANNEL])
def test_a_float_model_takes_normalized_values(spec: PreprocessSpec) -> None:
    tensor = PixelInput(spec, np.float32)(PIXELS)
    assert (tensor.shape, tensor.dtype) == ((1, 4, 4, 3), np.float32)
    wanted = (PIXELS.astype(np.float64) - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_allclose(tensor[0], wanted, rtol=1e-6)


def test_values_are_those_of_the_bundles_own_graph(small: Small) -> None:
    part = small.bundle.manifest.light.preprocessing
    graph = LiteRtModel(small.bundle.file(part.blob), signature="normalize")
    pixels = small.models.resize_light(picture(1))
    made = PixelInput(part.spec, np.float32)(pixels)
    np.testing.assert_array_equal(made, graph.run(pixels[None]))
    assert made.shape == (1, SIZE_PX, SIZE_PX, 3)


@given(triples, widths, st.sampled_from([np.int8, np.uint8]))
def test_a_quantized_model_takes_the_nearest_codes(
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    dtype: type[np.generic],
) -> None:
    spec = PreprocessSpec(size_px=4, mean=mean, std=std)
    low, high = value_range(spec)
    limits = np.iinfo(dtype)
    scale = max((high - low) / 255, 1e-6)
    zero_point = int(np.clip(round(limits.min - low / scale), limits.min, limits.max))
    codes = PixelInput(spec, dtype, scale=scale, zero_point=zero_point)(PIXELS)
    assert (codes.shape, codes.dtype) == ((1, 4, 4, 3), np.dtype(dtype))
    ends = real(np.array([limits.min, limits.max]), scale, zero_point)
    wanted = np.clip((PIXELS - np.array(mean)) / np.array(std), *ends)
    assert np.abs(real(codes[0], scale, zero_point) - wanted).max() <= 0.502 * scale


def test_codes_that_are_the_pixels() -> None:
    shifted = PixelInput(SPEC, np.int8, scale=1 / 128, zero_point=-1)(PIXELS)
    np.testing.assert_array_equal(shifted[0], PIXELS.astype(np.int16) - 128)
    same = PixelInput(SPEC, np.uint8, scale=1 / 128, zero_point=127)(PIXELS)
    np.testing.assert_array_equal(same[0], PIXELS)


def test_what_takes_pixels() -> None:
    assert takes_pixels(SPEC, scale=1 / 128, zero_point=-1)
    assert takes_pixels(SPEC, scale=1.0001 / 128, zero_point=-1)
    assert not takes_pixels(SPEC, scale=1 / 128, zero_point=0)
    assert not takes_pixels(SPEC, scale=1.01 / 128, zero_point=-1)
    assert not takes_pixels(BY_CHANNEL, scale=0.0187, zero_point=-14)


def test_levels_out_of_reach_saturate() -> None:
    codes = codes_of_levels(SPEC, np.int8, scale=1 / 512, zero_point=0)
    assert codes.shape == (3, 256)
    assert (codes[:, 0], codes[:, -1], codes[:, 127]) == (
        pytest.approx([-128] * 3),
        pytest.approx([127] * 3),
        pytest.approx([0] * 3),
    )


def test_the_range_of_all_pictures() -> None:
    assert value_range(SPEC) == (-127 / 128, 1.0)
    low, high = value_range(BY_CHANNEL)
    assert (low, high) == (pytest.approx(-123.7 / 58.4), pytest.approx((255 - 103.5) / 57.4))

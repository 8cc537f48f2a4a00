import numpy as np
import pytest

from hybridge.cloud.compiler.litert import Runner
from hybridge.cloud.compiler.quantization.ranges import Ranges, observe
from hybridge.cloud.compiler.quantization.tflite import static_int8
from hybridge.cloud.compiler.tflite_graph import find_cuts, pack_heads
from hybridge.cloud.compiler.tflite_pixels import begins_with_pixels, on_pixels
from hybridge.devices.litert import LiteRtModel
from hybridge.devices.pixel_input import PixelInput, value_range
from hybridge.shared.preprocess import PreprocessSpec

from .conftest import SIZE_PX, Converted

SPEC = PreprocessSpec(size_px=SIZE_PX)
PIXELS = np.random.default_rng(1).integers(0, 256, (SIZE_PX, SIZE_PX, 3), np.uint8)


@pytest.fixture(scope="module")
def int8(converted: Converted) -> bytes:
    seen = observe(converted.float32, converted.tensors, pixels=value_range(SPEC))
    return static_int8(converted.float32, seen, ranges=Ranges.PERCENTILE_999)


def test_the_range_of_all_pictures_makes_codes_of_pixels(converted: Converted, int8: bytes) -> None:
    assert begins_with_pixels(int8, SPEC)
    assert not begins_with_pixels(converted.float32, SPEC)
    assert not begins_with_pixels(int8, PreprocessSpec(size_px=SIZE_PX, mean=(120.0,) * 3))
    assert not begins_with_pixels(int8, PreprocessSpec(size_px=SIZE_PX, mean=(127.0, 127.0, 120.0)))


def test_without_its_first_operator_a_model_answers_the_same(int8: bytes) -> None:
    bare = on_pixels(int8, SPEC)
    assert not begins_with_pixels(bare, SPEC)
    codes, values = (PIXELS ^ 128).view(np.int8)[None], PixelInput(SPEC, np.float32)(PIXELS)
    wanted = Runner(int8).run(values)
    np.testing.assert_array_equal(Runner(bare).run(codes), wanted)
    np.testing.assert_array_equal(Runner(bare).run(values), wanted)
    assert LiteRtModel(bare).input_dtype == np.int8
    assert on_pixels(bare, SPEC) == bare


def test_heads_without_it_give_the_same_cuts(int8: bytes) -> None:
    cuts = {f"cut{index}": cut for index, cut in enumerate(find_cuts(int8)[1:])}
    plain, bare = pack_heads(int8, cuts), pack_heads(int8, cuts, codes=True)
    values = PixelInput(SPEC, np.float32)(PIXELS)
    codes = (PIXELS ^ 128).view(np.int8)[None]
    for name in cuts:
        wanted = Runner(plain, signature=name).run(values)
        np.testing.assert_array_equal(Runner(bare, signature=name).run(codes), wanted)


def test_a_float_model_stays_as_it_is(converted: Converted) -> None:
    assert on_pixels(converted.float32, SPEC) == converted.float32
    cuts = {"last": find_cuts(converted.float32)[-1]}
    assert pack_heads(converted.float32, cuts, codes=True) == pack_heads(converted.float32, cuts)


@pytest.mark.parametrize("ranges", list(Ranges))
def test_a_known_range_is_no_matter_of_calibration(converted: Converted, ranges: Ranges) -> None:
    seen = observe(converted.float32, converted.tensors[:1], pixels=(-3.0, 2.0))
    known = [each for each in seen.statistics(ranges).values() if each["min"].ravel() == -3.0]
    assert [each["max"].tolist() for each in known] == [[[[[2.0]]]]]

import numpy as np
import pytest

from hybridge.cloud.compiler.litert import Runner, relative_error
from hybridge.cloud.compiler.quantize import Ranges, quantize
from hybridge.cloud.compiler.tflite_graph import find_cuts, load
from hybridge.shared.errors import BuildError

from .conftest import Converted


def test_interface_stays_float_and_everything_between_is_int8(converted: Converted) -> None:
    graph = load(converted.int8).subgraphs[0]
    inside = {cut.dtype for cut in find_cuts(converted.int8)}
    answer = Runner(converted.int8).run(converted.tensors[0])
    assert answer.dtype == np.float32
    assert graph.tensors[graph.inputs[0]].type == 0
    assert inside == {"int8"}


def test_answers_stay_close_to_the_float_model(converted: Converted) -> None:
    float32, int8 = Runner(converted.float32), Runner(converted.int8)
    for tensor in converted.tensors:
        assert relative_error(int8.run(tensor), float32.run(tensor)) < 0.05


def test_min_max_covers_all_calibration_tensors(converted: Converted) -> None:
    loud = [converted.tensors[0] / 10, *converted.tensors[1:3]]
    scales = {
        ranges: find_cuts(quantize(converted.float32, loud, ranges=ranges))[0].scale
        for ranges in Ranges
    }
    expected = (max(t.max() for t in loud) - min(t.min() for t in loud)) / 255
    assert scales[Ranges.MIN_MAX] == pytest.approx(expected, rel=0.01)
    assert scales[Ranges.MOVING_AVERAGE] < expected / 2


def test_calibration_changes_the_model_and_nothing_else_does(converted: Converted) -> None:
    assert quantize(converted.float32, converted.tensors) == converted.int8
    assert quantize(converted.float32, converted.tensors[:1]) != converted.int8


def test_no_tensors_is_a_build_error(converted: Converted) -> None:
    with pytest.raises(BuildError, match="needs calibration tensors"):
        quantize(converted.float32, [])

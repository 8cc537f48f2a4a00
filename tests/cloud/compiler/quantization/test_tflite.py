import numpy as np
import pytest

from hybridge.cloud.compiler.litert import Runner, relative_error
from hybridge.cloud.compiler.quantization.ranges import Ranges, observe
from hybridge.cloud.compiler.quantization.tflite import dynamic_int8, quantize, static_int8
from hybridge.cloud.compiler.tflite_graph import find_cuts, load
from hybridge.shared.errors import BuildError

from ..conftest import Converted

_FLOAT32, _INT8 = 0, 9


def test_interface_stays_float_and_everything_between_is_int8(converted: Converted) -> None:
    graph = load(converted.int8).subgraphs[0]
    inside = {cut.dtype for cut in find_cuts(converted.int8)}
    answer = Runner(converted.int8).run(converted.tensors[0])
    assert answer.dtype == np.float32
    assert graph.tensors[graph.inputs[0]].type == _FLOAT32
    assert inside == {"int8"}


def test_answers_stay_close_to_the_float_model(converted: Converted) -> None:
    float32 = Runner(converted.float32)
    for made in (converted.int8, dynamic_int8(converted.float32)):
        int8 = Runner(made)
        for tensor in converted.tensors:
            assert relative_error(int8.run(tensor), float32.run(tensor)) < 0.05


def test_min_max_covers_all_calibration_tensors(converted: Converted) -> None:
    loud = [converted.tensors[0] / 10, *converted.tensors[1:3]]
    scale = find_cuts(quantize(converted.float32, loud))[0].scale
    expected = (max(t.max() for t in loud) - min(t.min() for t in loud)) / 255
    assert scale == pytest.approx(expected, rel=0.01)


def test_percentiles_clip_more_the_lower_they_are(converted: Converted) -> None:
    seen = observe(converted.float32, converted.tensors)
    scales = [
        find_cuts(static_int8(converted.float32, seen, ranges=ranges))[1].scale or 0.0
        for ranges in (Ranges.MIN_MAX, Ranges.PERCENTILE_9999, Ranges.PERCENTILE_999)
    ]
    assert scales[0] >= scales[1] > scales[2]


def test_a_dynamic_model_keeps_float_activations_and_is_small(converted: Converted) -> None:
    made = dynamic_int8(converted.float32)
    assert {cut.dtype for cut in find_cuts(made)} == {"float32"}
    assert any(tensor.type == _INT8 for tensor in load(made).subgraphs[0].tensors)


def test_an_operator_that_is_named_stays_in_float(converted: Converted) -> None:
    seen = observe(converted.float32, converted.tensors)
    name = find_cuts(converted.float32)[1].name
    made = static_int8(converted.float32, seen, ranges=Ranges.MIN_MAX, keep_float={name})
    graph = load(made).subgraphs[0]
    types = {tensor.name.decode(): tensor.type for tensor in graph.tensors}
    (producer,) = [
        operator
        for operator in graph.operators
        if graph.tensors[operator.outputs[0]].name.decode() == name
    ]
    inputs = [graph.tensors[at].type for at in producer.inputs]
    assert types[name] == _FLOAT32
    assert set(inputs) == {_FLOAT32}
    assert len(made) > len(converted.int8)


def test_calibration_changes_the_model_and_nothing_else_does(converted: Converted) -> None:
    assert quantize(converted.float32, converted.tensors) == converted.int8
    assert quantize(converted.float32, converted.tensors[:1]) != converted.int8


def test_no_tensors_is_a_build_error(converted: Converted) -> None:
    with pytest.raises(BuildError, match="needs calibration tensors"):
        quantize(converted.float32, [])

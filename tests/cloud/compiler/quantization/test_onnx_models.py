import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from hybridge.cloud.compiler.litert import Tensor, relative_error
from hybridge.cloud.compiler.onnx_graph import Wire, extract_tail, find_cuts, whole_from_pixels
from hybridge.cloud.compiler.quantization.onnx_choice import in_precision
from hybridge.cloud.compiler.quantization.onnx_models import (
    Feeds,
    dynamic_int8,
    float16,
    observe_onnx,
    static_int8,
)
from hybridge.cloud.compiler.quantization.ranges import Ranges
from hybridge.cloud.weights import OWN
from hybridge.shared.errors import BuildError
from hybridge.shared.manifest import Precision, Runtime
from hybridge.shared.preprocess import PreprocessSpec

from ..conftest import SIZE_PX, Converted
from ..graphs import run
from ..watching import Watch


def feeds_of(converted: Converted) -> list[Feeds]:
    name = converted.onnx.graph.input[0].name
    return [{name: tensor.transpose(0, 3, 1, 2)} for tensor in converted.tensors]


def answers(model: ModelProto, converted: Converted) -> Tensor:
    return np.concatenate(
        [run(model, tensor.transpose(0, 3, 1, 2)) for tensor in converted.tensors]
    )


def static(converted: Converted) -> ModelProto:
    seen = observe_onnx(converted.onnx, feeds_of(converted))
    return static_int8(converted.onnx, seen, ranges=Ranges.MIN_MAX)


def weight_types(model: ModelProto) -> set[int]:
    return {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}


def test_a_static_model_has_int8_weights_and_the_answers(converted: Converted) -> None:
    made = static(converted)
    assert weight_types(made) == {TensorProto.INT8}
    assert relative_error(answers(made, converted), answers(converted.onnx, converted)) < 0.05


def test_activations_are_unsigned_and_weights_per_channel(converted: Converted) -> None:
    made = static(converted)
    kinds = {tensor.name: tensor for tensor in made.graph.initializer}
    points = [kinds[n.input[2]] for n in made.graph.node if n.op_type == "QuantizeLinear"]
    assert {point.data_type for point in points} == {TensorProto.UINT8}
    assert any(list(tensor.dims) == [12] for name, tensor in kinds.items() if "scale" in name)


def test_the_same_model_gives_the_same_bytes(converted: Converted) -> None:
    first, second = (static(converted).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_dynamic_quantization_leaves_activations_in_float(converted: Converted) -> None:
    made = dynamic_int8(converted.onnx)
    operators = {node.op_type for node in made.graph.node}
    assert "DynamicQuantizeLinear" in operators
    assert "QuantizeLinear" not in operators
    assert relative_error(answers(made, converted), answers(converted.onnx, converted)) < 0.05


def test_every_cut_of_the_float_model_is_a_cut_of_the_quantized_ones(converted: Converted) -> None:
    wanted = answers(converted.onnx, converted)
    picture = converted.tensors[0].transpose(0, 3, 1, 2)
    cuts = find_cuts(converted.onnx)
    assert {"conv2d", "relu"} <= {cut.tensor for cut in cuts}
    seen = observe_onnx(converted.onnx, feeds_of(converted))
    static = static_int8(
        converted.onnx, seen, ranges=Ranges.MIN_MAX, kept=[cut.tensor for cut in cuts]
    )
    for made in (static, dynamic_int8(converted.onnx)):
        for cut in cuts:
            wire = Wire(shape=cut.shape)
            head_values = run(_ending_in(converted.onnx, cut.tensor), picture)
            tail = extract_tail(made, cut=cut, wire=wire)
            assert relative_error(run(tail, head_values), wanted[:1]) < 0.05


def test_float16_keeps_its_front_and_what_goes_in_and_out(converted: Converted) -> None:
    full = whole_from_pixels(converted.onnx, spec=PreprocessSpec(size_px=SIZE_PX))
    made = float16(full, front=OWN)
    assert weight_types(made) == {TensorProto.FLOAT16}
    assert made.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE_PX, SIZE_PX, 3), np.uint8)
    assert relative_error(run(made, pixels), run(full, pixels)) < 5e-3


def test_all_ways_are_tried_and_one_is_chosen(converted: Converted) -> None:
    watch = Watch()
    made = in_precision(converted.onnx, Precision.INT8, feeds_of(converted), progress=watch)
    assert watch.finished == {
        "looking at activations, twice": 2 * 6,
        "trying ways to find ranges": len(Ranges),
        "trying torch": 2,
    }
    methods = [each.method for each in made.tried]
    ways = ["dynamic", "torch/dynamic", *(f"static/{ranges}" for ranges in Ranges)]
    assert sorted(methods) == sorted(ways)
    (chosen,) = [each for each in made.tried if each.chosen]
    if made.proto is None:
        assert chosen.method == "torch/dynamic"
        return
    assert chosen.bytes == len(made.model)
    assert relative_error(answers(made.proto, converted), answers(converted.onnx, converted)) < 0.05


def test_bfloat16_is_torchs_and_stores_nothing(converted: Converted) -> None:
    made = in_precision(converted.onnx, Precision.BFLOAT16, feeds_of(converted))
    assert (made.runtime, made.proto) == (Runtime.TORCH, None)
    (record,) = made.tried
    assert record.method == "torch/cast"
    assert record.snr_db is not None
    assert 20 < record.snr_db < 100


def test_a_model_that_torch_does_not_run_is_refused_in_bfloat16(converted: Converted) -> None:
    odd = ModelProto()
    odd.CopyFrom(converted.onnx)
    (relu,) = [node for node in odd.graph.node if node.op_type == "Relu"]
    relu.op_type, relu.domain = "LRN", ""
    relu.attribute.append(helper.make_attribute("size", 3))
    with pytest.raises(BuildError, match=r"no operator LRN .*leave bfloat16 out of `tails`"):
        in_precision(odd, Precision.BFLOAT16, feeds_of(converted))
    assert "torch/dynamic" not in {
        each.method for each in in_precision(odd, Precision.INT8, feeds_of(converted)).tried
    }


def test_float16_is_judged_too(converted: Converted) -> None:
    (record,) = in_precision(converted.onnx, Precision.FLOAT16, feeds_of(converted)).tried
    assert record.precision is Precision.FLOAT16
    assert record.snr_db is not None
    assert record.snr_db > 40


def test_values_too_large_for_float16_are_refused(converted: Converted) -> None:
    loud: list[Feeds] = [
        {name: np.asarray(values * np.float32(1e6), np.float32) for name, values in feed.items()}
        for feed in feeds_of(converted)
    ]
    with pytest.raises(BuildError, match="overflows in float16"):
        in_precision(converted.onnx, Precision.FLOAT16, loud)


def _ending_in(model: ModelProto, tensor: str) -> ModelProto:
    """The model with a tensor as its only output."""
    made = ModelProto()
    made.CopyFrom(model)
    made.graph.output[0].name = tensor
    made.graph.output[0].type.tensor_type.ClearField("shape")
    return made

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from hybridge.cloud.compiler.litert import relative_error
from hybridge.cloud.compiler.onnx_graph import (
    OnnxCut,
    Wire,
    extract_tail,
    find_cuts,
    whole_from_pixels,
    with_outputs,
)
from hybridge.cloud.compiler.onnx_source import copy_of
from hybridge.shared.errors import BuildError
from hybridge.shared.preprocess import PreprocessSpec

from .conftest import CLASSES, SIZE_PX, Converted
from .graphs import run

SPEC = PreprocessSpec(size_px=SIZE_PX, mean=(120.0, 110.0, 100.0), std=(60.0, 61.0, 62.0))


def head_of(model: ModelProto, cut: OnnxCut) -> ModelProto:
    """The model with nothing but a cut as its output."""
    head = with_outputs(model, [cut])
    del head.graph.output[1]
    return head


def batch_of(converted: Converted) -> np.ndarray:
    return np.concatenate(converted.tensors).transpose(0, 3, 1, 2)


def test_no_cut_inside_the_residual_part(converted: Converted) -> None:
    shapes = [cut.shape for cut in find_cuts(converted.onnx)]
    assert shapes == [(8, 8, 8), (8, 8, 8), (8, 8, 8), (12, 4, 4), (12, 4, 4), (12,)]
    nodes = [cut.node for cut in find_cuts(converted.onnx)]
    assert nodes[2] - nodes[1] == 4  # depthwise, ReLU6, projection, addition


def test_each_head_and_tail_make_the_whole(converted: Converted) -> None:
    whole = run(converted.onnx, batch_of(converted))
    cuts = find_cuts(converted.onnx)
    assert cuts
    for cut in cuts:
        value = run(head_of(converted.onnx, cut), batch_of(converted))
        assert value.shape[1:] == cut.shape
        flat = value.ndim == 2
        channels_last = value if flat else value.transpose(0, 2, 3, 1)
        wire = Wire(shape=channels_last.shape[1:], channels_first=not flat)
        tail = extract_tail(converted.onnx, cut=cut, wire=wire)
        assert relative_error(run(tail, channels_last), whole) < 1e-5


def test_an_int8_tail_begins_with_dequantizing(converted: Converted) -> None:
    cut = find_cuts(converted.onnx)[2]
    scale, zero_point = 0.05, -20
    sent = np.random.default_rng(0).integers(-128, 128, (3, 8, 8, 8), np.int8)
    wire = Wire(shape=(8, 8, 8), channels_first=True, scale=scale, zero_point=zero_point)
    float_wire = Wire(shape=(8, 8, 8), channels_first=True)
    real = (sent.astype(np.float32) - zero_point) * np.float32(scale)
    tail = extract_tail(converted.onnx, cut=cut, wire=wire)
    assert [node.op_type for node in tail.graph.node[:2]] == ["DequantizeLinear", "Transpose"]
    wanted = run(extract_tail(converted.onnx, cut=cut, wire=float_wire), real)
    assert wanted.shape == (3, CLASSES)
    assert relative_error(run(tail, sent), wanted) < 1e-6


def test_a_tail_holds_only_its_own_weights(converted: Converted) -> None:
    cut = find_cuts(converted.onnx)[-1]
    tail = extract_tail(converted.onnx, cut=cut, wire=Wire(shape=(12,), channels_first=False))
    assert {tuple(t.dims) for t in tail.graph.initializer} == {(CLASSES, 12), (CLASSES,)}


def test_sizes_of_one_are_put_back(converted: Converted) -> None:
    model = copy_of(converted.onnx)
    (mean,) = [node for node in model.graph.node if node.op_type == "ReduceMean"]
    for attribute in mean.attribute:
        if attribute.name == "keepdims":
            attribute.i = 1
    pooled = mean.output[0]
    mean.output[0] = "pooled_4d"
    position = list(model.graph.node).index(mean) + 1
    squeeze = helper.make_node("Flatten", ["pooled_4d"], [pooled], axis=1)
    model.graph.node.insert(position, squeeze)
    cut = next(cut for cut in find_cuts(model) if cut.tensor == "pooled_4d")
    assert cut.shape == (12, 1, 1)
    values = np.random.default_rng(0).random((2, 12), np.float32)
    tail = extract_tail(model, cut=cut, wire=Wire(shape=(12,), channels_first=False))
    plain = find_cuts(converted.onnx)[-1]
    wire = Wire(shape=(12,), channels_first=False)
    wanted = run(extract_tail(converted.onnx, cut=plain, wire=wire), values)
    assert relative_error(run(tail, values), wanted) < 1e-6


def test_a_tensor_that_separates_nothing_is_refused(converted: Converted) -> None:
    inside = next(n for n in converted.onnx.graph.node if n.op_type == "Add").input[1]
    cut = OnnxCut(node=0, tensor=inside, shape=(8, 8, 8))
    with pytest.raises(BuildError, match="does not separate"):
        extract_tail(converted.onnx, cut=cut, wire=Wire(shape=(8, 8, 8), channels_first=True))


def test_the_whole_model_takes_pixels(converted: Converted) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE_PX, SIZE_PX, 3), np.uint8)
    tensor = ((pixels - np.array(SPEC.mean)) / np.array(SPEC.std)).astype(np.float32)
    wanted = run(converted.onnx, tensor.transpose(0, 3, 1, 2))
    whole = whole_from_pixels(converted.onnx, spec=SPEC)
    assert relative_error(run(whole, pixels), wanted) < 1e-5


def test_a_channels_last_model_is_not_transposed() -> None:
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)],
        "mean",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", SIZE_PX, SIZE_PX, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE_PX, SIZE_PX, 3), np.uint8)
    wanted = (pixels.mean((1, 2)) - np.array(SPEC.mean)) / np.array(SPEC.std)
    assert relative_error(run(whole_from_pixels(model, spec=SPEC), pixels), wanted) < 1e-5


def test_a_model_of_another_size_is_refused(converted: Converted) -> None:
    with pytest.raises(BuildError, match="preprocessing makes"):
        whole_from_pixels(converted.onnx, spec=PreprocessSpec(size_px=SIZE_PX + 1))


def test_a_wire_without_a_zero_point_is_refused() -> None:
    with pytest.raises(ValueError, match="come together"):
        Wire(shape=(4,), channels_first=False, scale=0.1)
    with pytest.raises(ValueError, match="no channels"):
        Wire(shape=(4,), channels_first=True)

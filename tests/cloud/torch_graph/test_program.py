"""Whole models and tails by torch, for any number of items, against ONNX Runtime."""

import numpy as np
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from hybridge.cloud.compiler.external import externalize
from hybridge.cloud.compiler.litert import Tensor, relative_error
from hybridge.cloud.compiler.onnx_graph import (
    OnnxCut,
    Wire,
    extract_tail,
    find_cuts,
    whole_from_pixels,
)
from hybridge.cloud.compiler.onnx_source import export_module
from hybridge.cloud.torch_graph.program import Program
from hybridge.cloud.torch_graph.weights import TorchWeights
from hybridge.cloud.weights import Weights
from hybridge.shared.errors import BundleError
from hybridge.shared.manifest import Precision
from hybridge.shared.preprocess import PreprocessSpec

from ..compiler.conftest import SHAPE, SIZE_PX
from ..compiler.graphs import run
from ..compiler.nets import DenseNet, MobileNet, ResidualNet, TwoBranches, VisionTransformer, make

FAMILIES = [ResidualNet, MobileNet, DenseNet, VisionTransformer]
OFF = {Precision.FLOAT32: 1e-5, Precision.BFLOAT16: 0.05, Precision.INT8: 0.05}


def by_torch(
    model: ModelProto, batch: Tensor, *, precision: Precision = Precision.FLOAT32
) -> Tensor:
    parts = externalize({"model": model})
    weights = Weights.from_bytes(parts.weights, table=parts.table)
    program = Program(parts.graphs["model"], weights=TorchWeights(weights.arrays, precision))
    (name,) = program.inputs
    fed = {name: torch.from_numpy(np.ascontiguousarray(batch))}
    first, again = (program.run(fed)[program.outputs[0]].numpy() for _ in range(2))
    np.testing.assert_array_equal(first, again)
    return first


def pixels(items: int) -> Tensor:
    return np.random.default_rng(0).integers(0, 256, (items, *SHAPE), np.uint8)


@pytest.mark.parametrize("precision", OFF)
@pytest.mark.parametrize("kind", FAMILIES, ids=lambda kind: kind.__name__)
def test_a_family_answers_as_onnx_runtime(kind: type[nn.Module], precision: Precision) -> None:
    whole = whole_from_pixels(
        export_module(make(kind), shape=SHAPE), spec=PreprocessSpec(size_px=SIZE_PX)
    )
    for items in (1, 3):
        wanted = run(whole, pixels(items))
        made = by_torch(whole, pixels(items), precision=precision)
        assert made.dtype == np.float32
        assert relative_error(made, wanted) < OFF[precision]


@pytest.mark.parametrize("kind", FAMILIES, ids=lambda kind: kind.__name__)
def test_a_tail_takes_what_came_over_the_wire(kind: type[nn.Module]) -> None:
    model = export_module(make(kind), shape=SHAPE)
    cut = find_cuts(model)[-1]
    wire = Wire(shape=cut.shape, scale=0.05, zero_point=-3)
    tail = extract_tail(model, cut=cut, wire=wire)
    sent = np.random.default_rng(1).integers(-128, 128, (2, *cut.shape), np.int8)
    assert relative_error(by_torch(tail, sent), run(tail, sent)) < 1e-5


def test_a_cut_of_several_tensors_is_taken_apart() -> None:
    model = export_module(make(TwoBranches), shape=SHAPE)
    named = {
        name: OnnxCut(node=at, tensor=name, shape=shape) for name, at, shape in _convolutions(model)
    }
    parts = [named[name] for name in sorted(named) if named[name].shape[0] in (2, 3)]
    wires = [
        Wire(shape=(8, 8, part.shape[0]), channels_first=True, scale=0.02 * n, zero_point=n)
        for n, part in enumerate(parts, start=1)
    ]
    cut, wire = OnnxCut.joined(parts), Wire.joined(wires)
    tail = extract_tail(model, cut=cut, wire=wire)
    sent = np.random.default_rng(1).integers(-128, 128, (2, *wire.shape), np.int8)
    for precision, off in OFF.items():
        made = by_torch(tail, sent, precision=precision)
        assert relative_error(made, run(tail, sent)) < off


def _convolutions(model: ModelProto) -> list[tuple[str, int, tuple[int, ...]]]:
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return [
        (node.output[0], at, (weights[node.input[1]][0], 8, 8))
        for at, node in enumerate(model.graph.node)
        if node.op_type == "Conv"
    ]


def graph_of(*nodes: NodeProto, **constants: object) -> bytes:
    """x [n, 4] to y."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in "xy"]
    weights = [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in constants.items()]
    graph = helper.make_graph(list(nodes), "g", values[:1], values[1:], weights)
    encoded: bytes = helper.make_model(graph).SerializeToString()
    return encoded


def test_sizes_that_a_graph_computes_follow_the_batch() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["items"]),
        helper.make_node("Mul", ["items", "two"], ["twice"]),
        helper.make_node("Div", ["twice", "two"], ["half"]),
        helper.make_node("Concat", ["half", "two", "two"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["square"]),
        helper.make_node("Transpose", ["square"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["turned", "flat"], ["y"]),
    ]
    made = Program(graph_of(*nodes, first=[0], two=[2], flat=[-1, 4]), weights=TorchWeights({}))
    for items in (2, 1, 2, 5):
        x = torch.arange(items * 4, dtype=torch.float32).reshape(items, 4)
        assert torch.equal(made.run({"x": x})["y"], x[:, [0, 2, 1, 3]])


def test_a_size_that_only_data_know_is_refused() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "flat"], ["sizes"]),
        helper.make_node("Reshape", ["x", "sizes"], ["y"]),
    ]
    program = Program(graph_of(*nodes, flat=[-1]), weights=TorchWeights({}))
    with pytest.raises(BundleError, match=r"Reshape .* takes input 1 from data"):
        program.run({"x": torch.ones(1, 4)})


def test_weights_of_another_shape_are_refused() -> None:
    model = export_module(make(ResidualNet), shape=SHAPE)
    parts = externalize({"model": model})
    arrays = dict(Weights.from_bytes(parts.weights, table=parts.table).arrays)
    name = next(iter(arrays))
    for wrong in ({**arrays, name: arrays[name][:1]}, {k: arrays[k] for k in arrays if k != name}):
        with pytest.raises(BundleError, match="hold no"):
            Program(parts.graphs["model"], weights=TorchWeights(wrong))


def test_a_damaged_graph_is_refused() -> None:
    with pytest.raises(BundleError, match="damaged graph"):
        Program(b"\xff\xff", weights=TorchWeights({}))


def test_nan_comes_out_of_int8_as_nan() -> None:
    whole = whole_from_pixels(
        export_module(make(VisionTransformer), shape=SHAPE), spec=PreprocessSpec(size_px=SIZE_PX)
    )
    for tensor in whole.graph.initializer:
        if tensor.name.endswith("mean"):
            tensor.CopyFrom(numpy_helper.from_array(np.float32([np.nan] * 3), tensor.name))
    parts = externalize({"model": whole})
    weights = Weights.from_bytes(parts.weights, table=parts.table)
    shared = TorchWeights(weights.arrays, Precision.INT8)
    program = Program(parts.graphs["model"], weights=shared)
    made = program.run({"pixels": torch.from_numpy(pixels(1))})[program.outputs[0]]
    assert bool(made.isnan().all())

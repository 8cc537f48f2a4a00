import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, helper
from onnx.numpy_helper import from_array
from torch import nn

from hybridge.cloud.compiler.litert import (
    Runner,
    compare_with_module,
    convert_module,
    relative_error,
)
from hybridge.cloud.compiler.onnx_fold import (
    fold,
    with_constant_reshapes,
    with_gelus,
    without_nan_guards,
)
from hybridge.cloud.compiler.onnx_graph import find_cuts
from hybridge.cloud.compiler.onnx_source import copy_of, export_module, normalized
from hybridge.cloud.compiler.onnx_torch import OnnxModule, torch_from_onnx
from hybridge.cloud.compiler.pairing import pair_cuts
from hybridge.cloud.compiler.quantization.tflite import quantize
from hybridge.shared.errors import BuildError

from ..torch_graph.test_operators import POOLS, Case, model_of
from .conftest import SHAPE, Converted, make_tensors
from .graphs import run
from .nets import ChannelsLast, DenseNet, MobileNet, ResidualNet, VisionTransformer, make

FAMILIES = [ResidualNet, MobileNet, DenseNet, VisionTransformer]


def channels_last(model: ModelProto) -> ModelProto:
    """The model behind a Transpose, its input [n, h, w, c]."""
    turned = copy_of(model)
    name = turned.graph.input[0].name
    for node in turned.graph.node:
        node.input[:] = ["turned" if given == name else given for given in node.input]
    turned.graph.node.insert(
        0, helper.make_node("Transpose", [name], ["turned"], perm=[0, 3, 1, 2])
    )
    dims = turned.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(dims[1:], SHAPE, strict=True):
        dim.dim_value = size
    return turned


def with_local_response_norm(model: ModelProto) -> ModelProto:
    """The model with an operator that is not in the table behind its last ReLU."""
    changed = copy_of(model)
    (relu,) = [node for node in changed.graph.node if node.op_type == "Relu"]
    plain, relu.output[0] = relu.output[0], "before"
    position = list(changed.graph.node).index(relu) + 1
    changed.graph.node.insert(
        position, helper.make_node("LRN", ["before"], [plain], name="odd", size=3)
    )
    return changed


@pytest.mark.parametrize("kind", FAMILIES, ids=lambda kind: kind.__name__)
def test_a_family_goes_from_onnx_to_litert(kind: type[nn.Module]) -> None:
    net = make(kind)
    tensors = make_tensors(2)
    made = torch_from_onnx(export_module(net, shape=SHAPE), tensors)
    assert (made.ended_by, made.channels_last) == ("", False)
    picture = torch.from_numpy(tensors[0].transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        assert relative_error(made.module(picture).numpy(), net(picture).numpy()) < 1e-5
    converted = convert_module(made.module, shape=SHAPE)
    assert compare_with_module(converted, net, tensors) < 1e-5


@pytest.mark.parametrize("case", [case for case in POOLS if "pads" in case.attributes], ids=str)
def test_padded_pools_keep_their_values_in_litert(case: Case) -> None:
    module = OnnxModule(model_of(case)).eval()
    height, width = case.shape[2:]
    tensor = np.random.default_rng(0).normal(size=(1, height, width, 4)).astype(np.float32)
    model = convert_module(module, shape=(height, width, 4))
    assert compare_with_module(model, module, [tensor]) < 1e-5


@pytest.mark.parametrize(
    "nodes",
    [
        [("Mul", "x", "plus", "a"), ("Mul", "a", "half", "y")],
        [("Mul", "half", "x", "a"), ("Mul", "plus", "a", "y")],
        [("Mul", "plus", "half", "a"), ("Mul", "x", "a", "y")],
        [("Mul", "x", "plus", "a"), ("Div", "a", "two", "y")],
    ],
    ids=["half-last", "half-of-x", "half-of-plus", "divided"],
)
def test_gelus_are_found_in_any_order(nodes: list[tuple[str, str, str, str]]) -> None:
    scalars = {"root": 2**0.5, "one": 1.0, "half": 0.5, "two": 2.0}
    graph = helper.make_graph(
        [
            helper.make_node("Div", ["x", "root"], ["scaled"]),
            helper.make_node("Erf", ["scaled"], ["erf"]),
            helper.make_node("Add", ["one", "erf"], ["plus"]),
            *(helper.make_node(op, [a, b], [out]) for op, a, b, out in nodes),
        ],
        "gelu",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 9])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 9])],
        [from_array(np.float32(value), name) for name, value in scalars.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    joined = with_gelus(model)
    assert [node.op_type for node in joined.graph.node] == ["Gelu"]
    tensor = np.linspace(-3, 3, 9, dtype=np.float32)[None]
    made = OnnxModule(joined)(torch.from_numpy(tensor)).numpy()
    assert relative_error(made, run(model, tensor)) < 1e-6


def computed_reshape() -> ModelProto:
    """A reshape whose shape is computed from the batch, as tf2onnx writes it, and a product."""
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "kernel"], ["c"]),
            helper.make_node("Shape", ["c"], ["sizes"]),
            helper.make_node("Gather", ["sizes", "order"], ["turned"]),
            helper.make_node("Cast", ["turned"], ["short"], to=onnx.TensorProto.INT32),
            helper.make_node("Slice", ["short", "zero", "one", "zero"], ["batch"]),
            helper.make_node("Concat", ["batch", "rest"], ["joined"], axis=0),
            helper.make_node("Cast", ["joined"], ["shape"], to=onnx.TensorProto.INT64),
            helper.make_node("Reshape", ["c", "shape"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["dense"]),
            helper.make_node("Relu", ["dense"], ["y"]),
        ],
        "flattening",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 5])],
        [
            from_array(np.random.default_rng(0).random((4, 3, 9, 9), np.float32), "kernel"),
            from_array(np.random.default_rng(1).random((256, 5), np.float32), "w"),
            from_array(np.array([0, 2, 3, 1], np.int64), "order"),
            from_array(np.array([0], np.int32), "zero"),
            from_array(np.array([1], np.int32), "one"),
            from_array(np.array([-1], np.int32), "rest"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_folding_leaves_no_shapes_to_compute() -> None:
    operators = {node.op_type for node in fold(computed_reshape()).graph.node}
    assert operators == {"Conv", "Reshape", "MatMul", "Relu"}


def test_a_computed_shape_is_written_down_for_any_batch() -> None:
    model = normalized(computed_reshape())
    written = with_constant_reshapes(model)
    assert [node.op_type for node in written.graph.node] == ["Conv", "Reshape", "MatMul", "Relu"]
    assert [cut.tensor for cut in find_cuts(written)] == ["c", "flat", "dense"]
    batch = np.random.default_rng(2).random((3, 3, 16, 16), np.float32)
    np.testing.assert_array_equal(run(written, batch), run(model, batch))


def test_a_transformer_is_cut_between_its_blocks() -> None:
    model, tensors = export_module(make(VisionTransformer), shape=SHAPE), make_tensors(3)
    float32 = convert_module(torch_from_onnx(model, tensors).module, shape=SHAPE)
    pairs = pair_cuts(model, float_model=float32, int8_model=None, tensors=tensors).pairs
    assert (17, 16) in [pair.shape for pair in pairs]
    assert max(pair.answer_error for pair in pairs) < 1e-5


def test_the_same_cuts_as_from_torch(converted: Converted) -> None:
    made = torch_from_onnx(converted.onnx, converted.tensors[:2])
    float32 = convert_module(made.module, shape=SHAPE)
    int8 = quantize(float32, converted.tensors)
    roads = [
        pair_cuts(
            converted.onnx,
            float_model=float_model,
            int8_model=int8_model,
            tensors=converted.tensors[:2],
        ).pairs
        for float_model, int8_model in ((converted.float32, converted.int8), (float32, int8))
    ]
    assert len(roads[0]) == 4
    assert [(p.name, p.onnx.tensor) for p in roads[0]] == [
        (p.name, p.onnx.tensor) for p in roads[1]
    ]
    assert all(pair.int8 is not None for pair in roads[1])


def test_a_channels_last_model_is_cut_too(converted: Converted) -> None:
    model = channels_last(converted.onnx)
    made = torch_from_onnx(model, converted.tensors[:2])
    assert made.channels_last
    float32 = convert_module(made.module, shape=SHAPE, channels_last=True)
    assert (
        compare_with_module(float32, made.module, converted.tensors[:2], channels_last=True) < 1e-5
    )
    few = converted.tensors[:2]
    pairs = pair_cuts(model, float_model=float32, int8_model=None, tensors=few).pairs
    assert [pair.name for pair in pairs] == ["c00-8x8x8", "c01-8x8x8", "c02-4x4x12", "c03-12"]


def test_a_channels_last_module_of_torch_is_converted() -> None:
    net = ChannelsLast(make(ResidualNet)).eval()
    tensor = make_tensors(1)[0]
    with torch.inference_mode():
        wanted = net(torch.from_numpy(tensor)).numpy()
    model = convert_module(net, shape=SHAPE, channels_last=True)
    assert relative_error(Runner(model).run(tensor), wanted) < 1e-5


def test_an_operator_that_cannot_run_ends_the_cuts(converted: Converted) -> None:
    model = normalized(with_local_response_norm(converted.onnx))
    made = torch_from_onnx(model, converted.tensors[:2])
    assert "operator LRN" in made.ended_by
    float32 = convert_module(made.module, shape=SHAPE)
    pairs = pair_cuts(
        model, float_model=float32, int8_model=None, tensors=converted.tensors[:2], whole=False
    ).pairs
    assert [pair.name for pair in pairs] == ["c00-8x8x8", "c01-8x8x8", "c02-4x4x12"]
    assert {pair.onnx.tensor for pair in pairs} <= {cut.tensor for cut in find_cuts(model)}


def test_an_operator_that_cannot_run_before_any_cut_is_a_build_error() -> None:
    model = export_module(nn.Sequential(nn.Conv2d(3, 5, 16), nn.Flatten()).eval(), shape=SHAPE)
    conv = model.graph.node[0]
    model.graph.node.insert(0, helper.make_node("LRN", ["input"], ["normed"], size=3))
    assert conv.op_type == "Conv"
    model.graph.node[1].input[0] = "normed"
    with pytest.raises(BuildError, match=r"operator LRN .* there is no cut before it"):
        torch_from_onnx(model, make_tensors(1))


def test_other_values_than_onnx_runtime_are_a_build_error(
    converted: Converted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxModule, "forward", lambda self, tensor: tensor.mean((2, 3))[:, :1] + 9)
    model = export_module(nn.Sequential(nn.Conv2d(3, 1, 16), nn.Flatten()).eval(), shape=SHAPE)
    with pytest.raises(BuildError, match="off ONNX Runtime on real pictures"):
        torch_from_onnx(model, make_tensors(1))


class Attention(nn.Module):
    """Attention with a mask, which torch exports with a guard against rows masked out."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, 8, 4, stride=4)
        self.answer = nn.Linear(8, 5)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        seen = self.look(pictures).flatten(2).transpose(1, 2)[:, None]
        mask = torch.ones(seen.shape[2], seen.shape[2], dtype=torch.bool)
        mixed = nn.functional.scaled_dot_product_attention(seen, seen, seen, attn_mask=mask)
        logits: torch.Tensor = self.answer(mixed[:, 0].mean(1))
        return logits


def test_guards_against_rows_without_a_number_are_left_out() -> None:
    torch.manual_seed(0)
    model = export_module(Attention().eval(), shape=SHAPE)
    kinds = [node.op_type for node in model.graph.node]
    assert "IsNaN" in kinds
    assert "IsNaN" not in [node.op_type for node in without_nan_guards(model).graph.node]
    tensors = make_tensors(2)
    made = torch_from_onnx(model, tensors)
    assert made.ended_by == ""
    wanted = run(model, tensors[0].transpose(0, 3, 1, 2))
    np.testing.assert_allclose(made.original()(tensors[0])[0], wanted, atol=1e-6)


def test_a_guard_of_anything_else_stays() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("IsNaN", ["x"], ["bad"]),
            helper.make_node("Where", ["bad", "zero", "x"], ["y"]),
        ],
        "guard",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3, 4, 4])],
        [from_array(np.float32(0), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    kept = without_nan_guards(model)
    assert [node.op_type for node in kept.graph.node] == ["IsNaN", "Where"]
    tensor = torch.tensor([1.0, float("nan")]).repeat(24).reshape(1, 3, 4, 4)
    made = OnnxModule(kept)(tensor)
    np.testing.assert_array_equal(made, run(model, tensor.numpy()))

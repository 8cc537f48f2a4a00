from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper
from onnx.numpy_helper import from_array

from hybridge.cloud.compiler.litert import relative_error
from hybridge.cloud.compiler.onnx_graph import batch_is_dynamic, input_of
from hybridge.cloud.compiler.onnx_source import (
    copy_of,
    export_module,
    free_batch,
    load_model,
    normalized,
)
from hybridge.cloud.compiler.onnx_torch import torch_from_onnx
from hybridge.shared.errors import BuildError

from .conftest import SHAPE, Converted, make_net, make_tensors
from .graphs import run


def flattening_model(*, batch: int | str, keep: int) -> ModelProto:
    """Reshape to [keep, 12] and a matrix product, with input [batch, 3, 4]."""
    weights = np.arange(24, dtype=np.float32).reshape(12, 2)
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "shape"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        "flattening",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        [from_array(np.array([keep, 12]), "shape"), from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_exported_model_answers_as_the_module_for_any_batch(converted: Converted) -> None:
    batch = np.concatenate(converted.tensors).transpose(0, 3, 1, 2)
    wanted = converted.module(torch.from_numpy(batch.copy())).detach().numpy()
    assert input_of(converted.onnx) == ("input", (None, 3, 16, 16))
    assert relative_error(run(converted.onnx, batch), wanted) < 1e-5


def test_export_leaves_no_trace_of_where_it_ran(converted: Converted) -> None:
    again = export_module(make_net(), shape=SHAPE)
    encoded = again.SerializeToString(deterministic=True)
    assert encoded == converted.onnx.SerializeToString(deterministic=True)
    assert b"/" not in b"".join(node.name.encode() for node in again.graph.node)
    assert b".py" not in encoded


def test_a_module_in_training_mode_is_refused() -> None:
    with pytest.raises(BuildError, match="training mode"):
        export_module(make_net().train(), shape=SHAPE)


def test_external_data_is_found_beside_the_model(tmp_path: Path, converted: Converted) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(  # changes what it is given
        copy_of(converted.onnx),
        path,
        save_as_external_data=True,
        location="net.data",
        size_threshold=0,
    )
    batch = converted.tensors[0].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(run(load_model(path), batch), run(converted.onnx, batch))
    weights = tmp_path / "net.data"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BuildError, match=r"'net\.data' was cut off before byte .*copy it again"):
        load_model(path)
    weights.unlink()
    with pytest.raises(BuildError, match=r"net\.onnx needs its external data file 'net\.data'"):
        load_model(path)


def test_external_data_outside_the_folder_are_refused(tmp_path: Path) -> None:
    model = flattening_model(batch=1, keep=1)
    (tmp_path / "secret").write_bytes(bytes(96))
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    path = tmp_path / "inside" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BuildError, match="outside its own folder"):
        load_model(path)


def test_a_missing_or_damaged_file_is_a_build_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no ONNX model at"):
        load_model(tmp_path / "none.onnx")
    for content in ("no model", ""):
        (tmp_path / "text.onnx").write_text(content)
        with pytest.raises(BuildError, match=r"text\.onnx is no ONNX model.*export or copy"):
            load_model(tmp_path / "text.onnx")


def test_foreign_operators_are_named() -> None:
    model = flattening_model(batch=1, keep=1)
    model.graph.node[1].op_type = "Spin"
    model.graph.node[1].domain = "com.example"
    with pytest.raises(BuildError, match=r"operators Spin of domain 'com\.example'"):
        normalized(model)


def test_an_old_opset_is_refused() -> None:
    model = flattening_model(batch=1, keep=1)
    model.opset_import[0].version = 11
    with pytest.raises(BuildError, match="opset 11 is too old"):
        normalized(model)


def two_inputs(*, side: tuple[int | str, ...], picture: tuple[int | str, ...]) -> ModelProto:
    """A picture's mean plus a side input, which comes first, and the mean alone."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["seen"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("Add", ["mean", "age"], ["answer"]),
        ],
        "two",
        [
            helper.make_tensor_value_info("age", TensorProto.FLOAT, side),
            helper.make_tensor_value_info("seen", TensorProto.FLOAT, picture),
        ],
        [
            helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, 3]),
            helper.make_tensor_value_info("mean", TensorProto.FLOAT, [1, 3]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_the_picture_comes_before_side_inputs() -> None:
    model = free_batch(normalized(two_inputs(side=(1, 3), picture=(1, 3, 8, 8))))
    assert [value.name for value in model.graph.input] == ["seen", "age"]
    assert [value.name for value in model.graph.output] == ["answer", "mean"]
    assert batch_is_dynamic(model)


@pytest.mark.parametrize(
    ("side", "picture", "count"), [((1, 3, 8, 8), (1, 3, 8, 8), 2), ((1, 3), (1, 5, 8, 8), 0)]
)
def test_exactly_one_input_may_be_the_picture(
    side: tuple[int, ...], picture: tuple[int, ...], count: int
) -> None:
    with pytest.raises(BuildError, match=f"{count} inputs that may be pictures among age, seen"):
        normalized(two_inputs(side=side, picture=picture))


def test_a_model_of_another_size_is_refused(tmp_path: Path, converted: Converted) -> None:
    model = copy_of(converted.onnx)
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 20
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(BuildError, match="takes 3x20x20, preprocessing makes 3x16x16; set size_px"):
        load_model(tmp_path / "net.onnx", shape=SHAPE)


class Fusion(torch.nn.Module):
    """A net of a picture and two numbers beside it that gives its answer and its features."""

    def __init__(self) -> None:
        super().__init__()
        self.see = torch.nn.Conv2d(3, 4, 3, stride=2)
        self.answer = torch.nn.Linear(6, 5)

    def forward(self, picture: torch.Tensor, age: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = torch.relu(self.see(picture)).mean((2, 3))
        return {"answer": self.answer(torch.cat([seen, age], 1)), "features": seen}


def test_a_module_of_several_inputs_and_outputs_keeps_their_names() -> None:
    torch.manual_seed(0)
    net, (tensor,) = Fusion().eval(), make_tensors(1)
    picture, age = torch.from_numpy(tensor.transpose(0, 3, 1, 2).copy()), torch.rand(1, 2)
    model = export_module(net, shape=SHAPE, example=(picture, age))
    assert [value.name for value in model.graph.input] == ["picture", "age"]
    assert batch_is_dynamic(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    made = session.run(["features", "answer"], {"picture": picture.numpy(), "age": age.numpy()})
    wanted = net(picture, age)
    np.testing.assert_allclose(made[0], wanted["features"].detach(), atol=1e-5)
    np.testing.assert_allclose(made[1], wanted["answer"].detach(), atol=1e-5)
    head = torch_from_onnx(model, [tensor])
    assert "side input 'age'" in head.ended_by
    np.testing.assert_allclose(head.original()(tensor)[0], made[0], atol=1e-5)


def test_a_batch_of_one_is_freed_where_items_stay_apart() -> None:
    freed = free_batch(normalized(flattening_model(batch=1, keep=1)))
    three = np.random.default_rng(0).random((3, 3, 4), np.float32)
    assert batch_is_dynamic(freed)
    assert run(freed, three).shape == (3, 2)


def test_a_batch_stays_one_where_items_would_mix() -> None:
    model = flattening_model(batch=1, keep=1)
    model.graph.node.append(helper.make_node("ReduceMean", ["y"], ["z"], axes=[0], keepdims=1))
    model.graph.output[0].name = "z"
    kept = free_batch(normalized(model))
    assert not batch_is_dynamic(kept)
    assert run(kept, np.ones((1, 3, 4), np.float32)).shape == (1, 2)


def test_a_fixed_batch_above_one_is_refused() -> None:
    with pytest.raises(BuildError, match="batches of exactly 4"):
        free_batch(normalized(flattening_model(batch=4, keep=4)))

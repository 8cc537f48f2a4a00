"""Work and shapes of ONNX graphs, and graphs of several inputs and outputs."""

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper
from onnx.numpy_helper import from_array

from hybridge.cloud.compiler.litert import Floats, relative_error
from hybridge.cloud.compiler.onnx_flow import OnnxFlow, picture_input
from hybridge.cloud.compiler.onnx_graph import (
    Wire,
    extract_tail,
    find_cuts,
    input_of,
    whole_from_pixels,
)
from hybridge.cloud.compiler.onnx_session import BareModel
from hybridge.shared.preprocess import PreprocessSpec

from .conftest import Converted

FLOAT = TensorProto.FLOAT


def sided() -> ModelProto:
    """An age, named first, joins in after the first convolution; a second output beside."""
    rng = np.random.default_rng(0)
    values = {
        "kernel": rng.standard_normal((4, 3, 3, 3), np.float32),
        "matrix": rng.standard_normal((5, 2), np.float32),
        "wide": rng.standard_normal((4, 300), np.float32),  # more than stays in a bare graph
    }
    nodes = [
        helper.make_node("Conv", ["picture", "kernel"], ["stem"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["stem"], ["relu"]),
        helper.make_node("ReduceMean", ["relu"], ["pooled"], axes=[2, 3], keepdims=0),
        helper.make_node("Concat", ["pooled", "age"], ["known"], axis=1),
        helper.make_node("MatMul", ["known", "matrix"], ["answer"]),
        helper.make_node("MatMul", ["pooled", "wide"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sided",
        [
            helper.make_tensor_value_info("age", FLOAT, ["n", 1]),
            helper.make_tensor_value_info("picture", FLOAT, ["n", 3, 8, 8]),
        ],
        [
            helper.make_tensor_value_info("answer", FLOAT, ["n", 2]),
            helper.make_tensor_value_info("embedding", FLOAT, ["n", 300]),
        ],
        [from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def answers(model: ModelProto, **inputs: Floats) -> list[Floats]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    made: list[Floats] = session.run(None, inputs)
    return made


def inputs() -> dict[str, Floats]:
    rng = np.random.default_rng(1)
    return {
        "picture": rng.random((2, 3, 8, 8), np.float32),
        "age": rng.random((2, 1), np.float32),
    }


def test_the_picture_is_found_wherever_it_stands(converted: Converted) -> None:
    assert input_of(sided()) == ("picture", (None, 3, 8, 8))
    assert picture_input(converted.onnx).name == "input"


def test_work_is_counted_in_multiply_adds() -> None:
    flow = OnnxFlow.of(sided()).flow
    pixels = 8 * 8
    work = {step.makes[0]: step.work for step in flow.steps}
    assert work == {
        "stem": 4 * pixels * 27,
        "relu": 4 * pixels,
        "pooled": 4 * pixels,
        "known": 0,
        "answer": 2 * 5,
        "embedding": 300 * 4,
    }
    assert flow.work_of(["relu"]) == 4 * pixels * 28


def test_work_of_a_depthwise_net(converted: Converted) -> None:
    flow = OnnxFlow.of(converted.onnx).flow
    convolutions = 64 * 8 * 27 + 64 * 8 * 9 + 64 * 8 * 8 + 16 * 12 * 8 * 9
    elementwise = 64 * 8 * 3 + 16 * 12  # two ReLU6, one sum, one ReLU
    assert flow.total_work == convolutions + elementwise + 16 * 12 + 12 * 5 + 5 * 0


def test_what_needs_the_age_is_left_to_the_cloud() -> None:
    model = sided()
    assert [cut.tensor for cut in find_cuts(model)] == ["stem", "relu", "pooled"]
    assert not OnnxFlow.of(model).flow.separate(["known", "embedding"])


def test_every_graph_takes_all_inputs_and_gives_all_outputs() -> None:
    model, given = sided(), inputs()
    wanted = answers(model, **given)
    cut = find_cuts(model)[2]
    tail = extract_tail(model, cut=cut, wire=Wire(shape=(4,)))
    bare = BareModel.of(model)
    stem = bare.session(bare.model, outputs=["pooled"]).run(["pooled"], given)[0]
    made = answers(tail, cut=stem, age=given["age"])
    assert len(made) == len(wanted) == 2
    assert max(map(relative_error, made, wanted)) < 1e-5
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    spec = PreprocessSpec(size_px=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    whole = whole_from_pixels(model, spec=spec)
    planes = pixels.transpose(0, 3, 1, 2).astype(np.float32)
    made = answers(whole, pixels=pixels, age=given["age"])
    wanted = answers(model, picture=planes, age=given["age"])
    assert max(map(relative_error, made, wanted)) < 1e-5


def test_a_bare_model_answers_as_the_model_does() -> None:
    model, given = sided(), inputs()
    bare = BareModel.of(model)
    assert bare.weights.keys() == {"wide"}
    assert bare.model.ByteSize() < model.ByteSize() - 4 * 300 * 4 + 200
    made = bare.session(bare.model).run(None, given)
    assert max(map(relative_error, made, answers(model, **given))) < 1e-6

import numpy as np
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

from hybridge.cloud.compiler.onnx_graph import OnnxCut, Wire
from hybridge.cloud.compiler.sensitivity import Sample, sensitivities

WEIGHTS = np.array([[3.0, -3.0], [0.5, -0.5], [0.0, 0.0]], np.float32)


def model(*, softmax: bool) -> bytes:
    """Two logits of three values: the first matters six times as much as the second."""
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["logits"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["chances"], axis=-1))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [
            helper.make_tensor_value_info(
                "chances" if softmax else "logits", TensorProto.FLOAT, ["n", 2]
            )
        ],
        [from_array(WEIGHTS, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 10
    return made.SerializeToString()


def found(*, softmax: bool) -> np.ndarray:
    sample = Sample(
        cut=OnnxCut(0, "h", (3,)),
        wire=Wire(shape=(3,)),
        values=np.full((6, 3), 0.05, np.float32),
    )
    (squares,) = sensitivities(model(softmax=softmax), [sample], logits=not softmax)
    assert squares is not None
    return squares


def test_what_moves_the_answer_more_counts_by_its_square() -> None:
    squares = found(softmax=False)
    assert squares.shape == (3,)
    np.testing.assert_allclose(squares[0] / squares[1], 36, rtol=1e-4)
    assert squares[2] == 0


def test_probabilities_weigh_as_their_logits_do() -> None:
    np.testing.assert_allclose(found(softmax=True), found(softmax=False), rtol=1e-3)


def test_a_tail_that_torch_does_not_have_weighs_nothing() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Det", ["h"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 10
    sample = Sample(OnnxCut(0, "h", (2, 2)), Wire(shape=(2, 2)), np.ones((1, 2, 2), np.float32))
    assert sensitivities(made.SerializeToString(), [sample], logits=True) == [None]

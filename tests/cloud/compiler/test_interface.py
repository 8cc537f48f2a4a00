import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from hybridge.cloud.compiler.interface import name_outputs, side_inputs
from hybridge.shared.errors import BuildError
from hybridge.shared.tensor import Array, TensorSpec

CLASSES = 5


def model_of(*inputs: tuple[str, int, list[str | int]]) -> ModelProto:
    """A model that takes a picture and these."""
    values = [("picture_in", TensorProto.FLOAT, ["n", 3, 8, 8]), *inputs]
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in values]
    return helper.make_model(helper.make_graph([], "g", infos, []))


def test_inputs_beside_the_picture() -> None:
    model = model_of(
        ("patient", TensorProto.FLOAT, ["n", 2]),
        ("site", TensorProto.INT64, [1]),
        ("mask", TensorProto.BOOL, ["n", 4, 4]),
    )
    assert side_inputs(model, picture="picture_in") == (
        TensorSpec("patient", "FP32", (2,)),
        TensorSpec("site", "INT64", ()),
        TensorSpec("mask", "BOOL", (4, 4)),
    )
    assert side_inputs(model_of(), picture="picture_in") == ()


@pytest.mark.parametrize(
    ("name", "kind", "shape", "message"),
    [
        ("pixels", TensorProto.FLOAT, ["n", 2], "'pixels' would be mistaken for ours; rename it"),
        ("cut", TensorProto.FLOAT, ["n", 2], "would be mistaken"),
        ("hybridge/x", TensorProto.FLOAT, ["n", 2], "would be mistaken"),
        ("a,b", TensorProto.FLOAT, ["n", 2], "cannot be listed|holds what"),
        ("x", TensorProto.FLOAT, [], "must have the pictures as its first axis"),
        ("x", TensorProto.FLOAT, [2], "must have the pictures as its first axis"),
        ("x", TensorProto.FLOAT, ["n", "length"], "has sizes that are not fixed"),
        ("x", TensorProto.STRING, ["n", 2], "input 'x': dtype object has no"),
        ("x", TensorProto.BFLOAT16, ["n", 2], "input 'x'"),
    ],
)
def test_inputs_that_no_caller_could_send(
    name: str, kind: int, shape: list[str | int], message: str
) -> None:
    with pytest.raises(BuildError, match=message):
        side_inputs(model_of((name, kind, shape)), picture="picture_in")


def floats(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def named(made: dict[str, Array], answer: str = "") -> tuple[str, list[str]]:
    outputs = name_outputs(made, items=2, classes=CLASSES, answer=answer)
    return outputs.answer, [str(spec) for spec in outputs.further]


def test_the_answer_is_what_can_be_one() -> None:
    assert named({"out": floats(2, 9)}) == ("out", [])  # whether it fits is asked elsewhere
    made = {"feature": floats(2, 8), "logits": floats(2, CLASSES), "top": np.zeros(2, np.int64)}
    assert named(made) == ("logits", ["feature FP32 [8]", "top INT64 []"])
    assert named({**made, "aux": floats(2, CLASSES)}, "aux")[0] == "aux"


def test_an_answer_that_is_not_clear() -> None:
    two = {"logits": floats(2, CLASSES), "aux": floats(2, CLASSES)}
    with pytest.raises(BuildError, match=r"2 outputs .* logits float32 \(2, 5\), aux .*answer = "):
        named(two)
    with pytest.raises(BuildError, match="0 outputs have a value for each of 5 classes"):
        named({"a": floats(2, 3), "b": np.zeros((2, CLASSES), np.int64)})
    with pytest.raises(BuildError, match="no output 'score'; it has logits, aux"):
        named(two, "score")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("labels", floats(2, 1), "'labels' would be mistaken for ours"),
        ("x", floats(), "first axis must be the pictures"),
        ("x", floats(3, 1), r"output 'x' is \[3, 1\] for 2 pictures"),
        ("x", np.zeros((2, 1), object), "output 'x': dtype object"),
        ("x", floats(2, 0), "output 'x': shape"),
    ],
)
def test_outputs_that_callers_could_not_be_given(name: str, array: Array, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        named({"logits": floats(2, CLASSES), name: array})

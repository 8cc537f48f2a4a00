import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

from hybridge.cloud.compiler.onnx_graph import OnnxCut, Wire
from hybridge.cloud.compiler.progress import uncounted
from hybridge.cloud.compiler.sensitivity import (
    Sample,
    sensitivities,
    spectral_metric,
    window_of,
)
from hybridge.cloud.compiler.transform_fit import transform_bands

from .watching import Watch

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
    (sensitivity,) = sensitivities(uncounted, model(softmax=softmax), [sample], logits=not softmax)
    assert sensitivity is not None
    assert sensitivity.metric is None
    return sensitivity.squares


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
    watch = Watch()
    assert sensitivities(watch.count, made.SerializeToString(), [sample], logits=True) == [None]
    assert watch.finished == {"": 1}


def pooled(*, weights: np.ndarray) -> bytes:
    """Two logits: the sums of each channel's values [6, 5, 2] by their place's weight [6, 5]."""
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("Mul", ["h", "w"], ["weighed"]),
        helper.make_node("ReduceSum", ["weighed", "axes"], ["logits"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 6, 5])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [from_array(weights[None, None], "w"), from_array(np.array([2, 3]), "axes")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 10
    return made.SerializeToString()


def test_a_window_follows_what_places_count_and_the_metric_is_of_the_rest() -> None:
    weights = np.outer([1, 2, 3, 3, 2, 1], [1, 2, 4, 2, 1]).astype(np.float32)
    bands = transform_bands((6, 5, 2))
    sample = Sample(
        cut=OnnxCut(0, "h", (2, 6, 5)),
        wire=Wire(shape=(6, 5, 2), channels_first=True),
        values=np.full((4, 6, 5, 2), 0.5, np.float32),
        bands=bands,
    )
    (found,) = sensitivities(uncounted, pooled(weights=weights), [sample], logits=True)
    assert found is not None
    assert found.window is not None
    assert found.metric is not None
    expected = np.maximum(weights**2, 0.05 * np.mean(weights**2))
    np.testing.assert_allclose(found.window, np.sqrt(expected / expected.mean()), rtol=1e-5)
    # Equal logits: g is w times plus or minus 1/2, and behind the window the same everywhere but
    # where the window has its least value.
    one = np.array([[0.25, -0.25], [-0.25, 0.25]])
    rest = weights / found.window
    energy = np.square(rest).sum()
    np.testing.assert_allclose(found.metric[0] / one, found.metric[0][0, 0] / 0.25, rtol=1e-5)
    total = sum(own * band.size for own, band in zip(found.metric, bands, strict=True))
    np.testing.assert_allclose(total, one * energy, rtol=1e-5)
    of_codes = found.of_codes(np.full((6, 5, 2), 3.0))
    assert of_codes.metric is not None
    np.testing.assert_allclose(of_codes.metric, 9 * found.metric)
    np.testing.assert_allclose(of_codes.squares, 9 * found.squares)


def test_a_metric_of_white_slopes_is_that_of_their_channels() -> None:
    random = np.random.default_rng(1)
    mix = np.array([[1.0, 0.5, 0.0], [0.0, 2.0, 0.3], [0.0, 0.0, 0.1]])
    slopes = [(random.normal(size=(8, 8, 3)) @ mix).astype(np.float32) for _ in range(200)]
    metric = spectral_metric(slopes, np.ones((8, 8)), transform_bands((8, 8, 3))) / 200
    for own in metric[1:]:
        np.testing.assert_allclose(own, mix.T @ mix, atol=0.45)


@pytest.mark.parametrize("shape", [(3, 4, 2), (1, 1, 1)])
def test_a_window_of_nothing_is_even(shape: tuple[int, int, int]) -> None:
    np.testing.assert_allclose(window_of(np.zeros(shape)), 1.0)

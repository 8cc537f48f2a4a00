import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import nn
from torch.nn import functional

from hybridge.cloud.compiler.litert import Runner, convert_module
from hybridge.cloud.compiler.quantization.operators import kind_of
from hybridge.cloud.compiler.tflite_graph import load, save
from hybridge.cloud.compiler.tflite_padding import padded_by_zero

SHAPE = (12, 12, 3)
PICTURES = np.random.default_rng(0).normal(size=(4, 1, *SHAPE)).astype(np.float32)


class Pooled(nn.Module):
    """A convolution and a max pooling with padding, as ResNets begin."""

    def __init__(self, *, relu: bool, value: float = -torch.inf, last: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3)
        self.relu, self.value, self.last = relu, value, last

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        made = self.first(picture)
        made = functional.relu(made) if self.relu else made
        made = functional.pad(made, (1, 1, 1, 1), value=self.value)
        return made if self.last else functional.max_pool2d(made, 3, 2)


def kinds(model: bytes) -> list[str]:
    tree = load(model)
    return [kind_of(tree, operator) for operator in tree.subgraphs[0].operators]


def converted(net: nn.Module) -> bytes:
    return convert_module(net.eval(), shape=SHAPE)


@pytest.fixture(scope="module")
def stem() -> bytes:
    return converted(Pooled(relu=True))


def test_behind_a_relu_a_max_pooling_may_as_well_see_zeros(stem: bytes) -> None:
    assert "PADV2" in kinds(stem)
    padded = padded_by_zero(stem)
    assert kinds(padded) == [{"PADV2": "PAD"}.get(kind, kind) for kind in kinds(stem)]
    for picture in PICTURES:
        np.testing.assert_array_equal(Runner(padded).run(picture), Runner(stem).run(picture))
    assert padded_by_zero(padded) == padded


def test_where_zero_would_change_the_answer_nothing_is_changed(stem: bytes) -> None:
    for net in (
        Pooled(relu=False),
        Pooled(relu=True, value=1.0),
        Pooled(relu=True, value=-1.0, last=True),
    ):
        model = converted(net)
        assert "PADV2" in kinds(model)
        assert padded_by_zero(model) == model
    # A window that may lie in the padding alone: its greatest value is the padding's.
    tree = load(stem)
    (graph,) = tree.subgraphs
    (pooling,) = (each for each in graph.operators if kind_of(tree, each) == "MAX_POOL_2D")
    pooling.builtinOptions.filterHeight = 1
    narrow = save(tree)
    assert padded_by_zero(narrow) == narrow


def test_a_padding_by_zero_needs_no_relu(stem: bytes) -> None:
    tree = load(stem)
    (graph,) = tree.subgraphs
    (padding,) = (each for each in graph.operators if kind_of(tree, each) == "PADV2")
    value = graph.tensors[int(padding.inputs[2])]
    tree.buffers[value.buffer].data = np.zeros(4, np.uint8)
    for operator in graph.operators:
        if hasattr(operator.builtinOptions, "fusedActivationFunction"):
            operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
    zeros = save(tree)
    padded = padded_by_zero(zeros)
    assert "PADV2" not in kinds(padded)
    for picture in PICTURES:
        np.testing.assert_array_equal(Runner(padded).run(picture), Runner(zeros).run(picture))

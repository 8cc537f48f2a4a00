"""Reading ONNX graphs, laying them out in lanes, condensing them to blocks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridge.report.inspect.blocks import blocks
from hybridge.report.inspect.graph import Graph, Operator
from hybridge.report.inspect.lanes import Step, lay_out, width
from hybridge.report.inspect.onnx_reading import read_graph
from hybridge.report.inspect.tables import TIMES
from hybridge.shared.errors import BundleError

from ...cloud.bundles import SidedModel, TinyModel


def chain(*names: str) -> list[Operator]:
    return [
        Operator(name=name, detail="", reads=(f"t{at}",), writes=(f"t{at + 1}",))
        for at, name in enumerate(names)
    ]


def graph_of(operators: list[Operator], output: str) -> Graph:
    return Graph(inputs=("t0",), outputs=(output,), operators=tuple(operators))


RESIDUAL = graph_of(
    [
        Operator("Conv", "", ("t0",), ("t1",), (8, 4, 4), 100, 10),
        Operator("Conv", "", ("t1",), ("t2",), (8, 4, 4), 300, 30),
        Operator("Relu", "", ("t2",), ("t3",), (8, 4, 4)),
        Operator("Add", "", ("t3", "t1"), ("t4",), (8, 4, 4)),
        Operator("Gemm", "", ("t4",), ("t5",), (5,), 100, 10),
    ],
    "t5",
)


def test_a_graph_as_onnx_has_it() -> None:
    graph = read_graph(TinyModel().graphs()["whole"].SerializeToString())
    assert (graph.inputs, graph.outputs) == (("pixels",), ("logits",))
    assert [each.words for each in graph.operators] == [
        "Cast", "Div", "Transpose", f"Conv 4{TIMES}4/4 → 8", "Relu", "Flatten", "MatMul → 5",
    ]  # fmt: skip
    conv, matmul = graph.operators[3], graph.operators[-1]
    sided = read_graph(SidedModel().graphs()["whole"].SerializeToString())
    assert {each.name: each.parameters for each in sided.operators}["Gather"] == 4 * 5
    assert (conv.shape, conv.multiply_adds, conv.parameters) == ((8, 4, 4), 8 * 16 * 48, 8 * 48)
    assert (matmul.shape, matmul.multiply_adds) == ((5,), 128 * 5)


def test_a_graph_of_several_inputs_and_outputs() -> None:
    graph = read_graph(SidedModel().graphs()["whole"].SerializeToString())
    assert set(graph.inputs) == {"pixels", "patient", "site"}
    assert set(graph.outputs) == {"logits", "embedding"}
    found = blocks(graph, [("cut", ("features",))])
    assert [block.cut for block in found] == ["cut", ""]
    assert width([each.row for block in found for each in block.chains]) >= 3


def test_depthwise_and_grouped_convolutions() -> None:
    def words(group: int) -> str:
        info = onnx.helper.make_tensor_value_info
        weights = onnx.numpy_helper.from_array(np.zeros((8, 8 // group, 3, 3), np.float32), "w")
        node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], group=group)
        graph = onnx.helper.make_graph(
            [node], "g", [info("x", 1, ["n", 8, 6, 6])], [info("y", 1, ["n", 8, 4, 4])], [weights]
        )
        (operator,) = read_graph(onnx.helper.make_model(graph).SerializeToString()).operators
        assert operator.multiply_adds == 8 * 16 * 9 * 8 // group
        return operator.words

    assert words(8) == f"Depthwise conv 3{TIMES}3 → 8"
    assert words(2) == f"Grouped conv (2) 3{TIMES}3 → 8"
    assert words(1) == f"Conv 3{TIMES}3 → 8"


def test_what_is_no_graph() -> None:
    with pytest.raises(BundleError, match="graph cannot be read"):
        read_graph(b"no graph")


def test_work_counts_what_a_cut_depends_on() -> None:
    assert RESIDUAL.work_before(("t1",)) == pytest.approx(0.2)
    assert RESIDUAL.work_before(("t3", "t1")) == pytest.approx(0.8)
    assert RESIDUAL.work_before(("elsewhere",)) is None
    beside = [
        Operator("Conv", "", ("t0",), ("left",), (), 100),
        Operator("Conv", "", ("t0",), ("right",), (), 300),
        Operator("Add", "", ("left", "right"), ("sum",), (), 100),
    ]
    assert graph_of(beside, "sum").work_before(("left", "right")) == pytest.approx(0.8)
    assert graph_of(beside, "sum").work_before(("right",)) == pytest.approx(0.6)


def test_chains_end_where_a_tensor_branches_and_at_marks() -> None:
    (block,) = blocks(RESIDUAL, [])
    assert [each.words for each in block.chains] == ["Conv", "Conv · Relu", "Add · Gemm"]
    assert block.parameters == 50
    (marked,) = blocks(RESIDUAL, [], marked=["t4"])
    assert [each.words for each in marked.chains] == ["Conv", "Conv · Relu", "Add", "Gemm"]


def test_blocks_end_at_cuts_and_share_the_work() -> None:
    found = blocks(RESIDUAL, [("late", ("t4",)), ("nowhere", ("t9",)), ("early", ("t1",))])
    assert [block.cut for block in found] == ["early", "late", ""]
    assert [block.work for block in found] == pytest.approx([0.2, 0.6, 0.2])
    assert found[1].census == "1 Conv, 1 Relu, 1 Add"


def test_a_cut_of_two_tensors_ends_where_both_are_there() -> None:
    first, second = blocks(RESIDUAL, [("both", ("t1", "t3"))])
    assert (first.cut, len(first.operators), len(second.operators)) == ("both", 3, 2)


def test_a_long_chain_is_broken() -> None:
    (block,) = blocks(graph_of(chain(*["Relu"] * 20), "t20"), [])
    assert sum(len(each.operators) for each in block.chains) == 20
    assert len(block.chains) == 3


def test_a_branch_moves_aside_and_comes_back() -> None:
    steps = [
        Step(("t0",), ("t1",)),
        Step(("t1",), ("t2",)),
        Step(("t2", "t1"), ("t3",)),
    ]
    first, second, third = lay_out(steps, inputs=["t0"], outputs=["t3"])
    assert [row.lane for row in (first, second, third)] == [0, 0, 0]
    assert [row.live for row in (first, second, third)] == [1, 2, 1]
    assert any((line.from_lane, line.to_lane) == (0, 1) for line in second.lines)
    assert any((line.from_lane, line.to_lane) == (1, 0) for line in third.lines)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Step], str]:
    """Any graph whose operators read one to three earlier tensors."""
    made, steps = ["t0"], []
    for _ in range(draw(st.integers(1, 25))):
        reads = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True))
        writes = tuple(f"t{len(made) + n}" for n in range(draw(st.integers(1, 2))))
        steps.append(Step(tuple(reads), writes))
        made.extend(writes)
    return steps, made[-1]


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_no_two_live_tensors_share_a_lane(case: tuple[list[Step], str]) -> None:
    steps, output = case
    rows = lay_out(steps, inputs=["t0"], outputs=[output])
    last = {name: at for at, step in enumerate(steps) for name in step.reads}
    last[output] = len(steps)
    made = {"t0"}
    arriving = {0}
    for at, (step, row) in enumerate(zip(steps, rows, strict=True)):
        assert {line.from_lane for line in row.lines if line.from_level == 0} <= arriving
        made.update(step.writes)
        leaving = {line.to_lane for line in row.lines if line.to_level == 2}
        assert len(leaving) == row.live == sum(last.get(name, -1) > at for name in made)
        arriving = leaving

"""Every operator of the table against ONNX Runtime, one node at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper
from onnx.numpy_helper import from_array

from hybridge.cloud.compiler.litert import Floats, relative_error
from hybridge.cloud.compiler.onnx_torch import OnnxModule
from hybridge.cloud.torch_graph.operators import OPERATORS
from hybridge.shared.errors import BuildError

from ..compiler.graphs import run

PICTURE = (1, 4, 7, 9)


@dataclass(frozen=True)
class Case:
    """One node: its input's shape, its other inputs (None: not given), its attributes."""

    operator: str
    shape: tuple[int, ...] = PICTURE
    constants: tuple[Any, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 18
    outputs: int = 1
    positive: bool = False

    def __str__(self) -> str:
        written = "-".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.operator}-{'x'.join(map(str, self.shape))}-{written}".replace(" ", "")


def floats(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def model_of(case: Case) -> ModelProto:
    names = ["" if value is None else f"c{number}" for number, value in enumerate(case.constants)]
    outputs = [f"y{number}" for number in range(case.outputs)]
    nodes = [helper.make_node(case.operator, ["x", *names], outputs, **case.attributes)]
    if case.outputs > 1:
        nodes.append(helper.make_node("Concat", outputs[::-1], ["y"], axis=1))
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, case.shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [from_array(v, f"c{n}") for n, v in enumerate(case.constants) if v is not None],
    )
    opset = helper.make_opsetid("", case.opset)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def check(case: Case) -> None:
    model = model_of(case)
    tensor = floats(*case.shape, seed=0)
    if case.positive:
        tensor = np.abs(tensor) + np.float32(0.1)
    wanted = run(model, tensor)
    with torch.inference_mode():
        made = OnnxModule(model)(torch.from_numpy(tensor)).numpy()
    assert made.shape == wanted.shape
    assert made.dtype == wanted.dtype
    assert relative_error(made, wanted) < 1e-5


W = floats(6, 4, 3, 3)
CONVOLUTIONS = [
    Case("Conv", constants=(W,)),
    Case("Conv", constants=(W, floats(6)), attributes={"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    Case("Conv", constants=(W,), attributes={"pads": [0, 0, 1, 1], "strides": [2, 2]}),
    Case("Conv", constants=(W,), attributes={"pads": [2, 0, 1, 3], "dilations": [2, 1]}),
    Case("Conv", constants=(floats(8, 1, 3, 3),), attributes={"group": 4}),
    Case("Conv", constants=(W,), attributes={"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case("Conv", constants=(W,), attributes={"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    Case("Conv", constants=(W,), attributes={"auto_pad": "VALID"}),
    Case("Conv", (1, 4, 9), (floats(6, 4, 3),), {"pads": [1, 0]}),
    Case("ConvTranspose", constants=(floats(4, 5, 2, 2),), attributes={"strides": [2, 2]}),
    Case(
        "ConvTranspose",
        constants=(floats(4, 3, 3, 3), floats(6)),
        attributes={
            "strides": [2, 2],
            "pads": [1, 1, 1, 1],
            "output_padding": [1, 1],
            "group": 2,
        },
    ),
    Case("ConvTranspose", constants=(floats(4, 5, 3, 3),), attributes={"pads": [0, 1, 1, 0]}),
]
K3 = {"kernel_shape": [3, 3]}
POOLS = [
    Case("MaxPool", attributes={**K3, "strides": [2, 2]}),
    Case("MaxPool", attributes={**K3, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("MaxPool", attributes={**K3, "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    Case("MaxPool", attributes={**K3, "strides": [2, 2], "pads": [1, 0, 0, 1], "ceil_mode": 1}),
    Case("MaxPool", (1, 4, 8, 8), attributes={**K3, "strides": [2, 2], "ceil_mode": 1}),
    Case("MaxPool", (1, 4, 8, 8), attributes={**K3, "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case("MaxPool", attributes={**K3, "dilations": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("AveragePool", attributes={**K3, "strides": [2, 2]}),
    Case("AveragePool", attributes={**K3, "pads": [1, 1, 1, 1]}),
    Case("AveragePool", attributes={**K3, "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    Case("AveragePool", attributes={**K3, "pads": [0, 0, 1, 2]}),
    Case("AveragePool", attributes={**K3, "pads": [0, 0, 1, 2], "count_include_pad": 1}),
    Case("AveragePool", (1, 4, 8, 8), attributes={**K3, "strides": [2, 2], "ceil_mode": 1}),
    Case(
        "AveragePool",
        (1, 4, 8, 8),
        attributes={
            **K3,
            "strides": [2, 2],
            "pads": [1, 1, 0, 0],
            "ceil_mode": 1,
            "count_include_pad": 1,
        },
        opset=19,
    ),
    Case("AveragePool", attributes={**K3, "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case("GlobalAveragePool"),
    Case("GlobalMaxPool"),
]
PRODUCTS = [
    Case("Gemm", (1, 5), (floats(5, 3), floats(3))),
    Case("Gemm", (1, 5), (floats(3, 5), floats(1, 3)), {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", (5, 2), (floats(5, 3), floats(2, 1)), {"transA": 1}),
    Case("Gemm", (1, 5), (floats(5, 3),)),
    Case("MatMul", (1, 6, 5), (floats(5, 3),)),
    Case("MatMul", (1, 2, 6, 5), (floats(2, 5, 3),)),
]
ELEMENTWISE = [
    *(
        Case(operator)
        for operator in (
            *("Abs", "Erf", "Exp", "Identity", "Neg", "Relu", "Sigmoid", "Softplus", "Tanh"),
            *("HardSwish", "HardSigmoid", "Elu", "LeakyRelu", "Softmax", "LogSoftmax"),
            *("Dropout", "Mean"),
        )
    ),
    *(Case(operator, positive=True) for operator in ("Log", "Reciprocal", "Sqrt")),
    *(
        Case(operator, constants=(floats(4, 1, 1),))
        for operator in ("Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu", "Sum")
    ),
    Case("Max", constants=(floats(9), floats(7, 1, seed=2))),
    Case("Pow", constants=(np.float32(2),)),
    Case("Pow", constants=(np.array([1.5], np.float32),), positive=True),
    Case("HardSigmoid", attributes={"alpha": 1 / 6}),
    Case("Elu", attributes={"alpha": 0.5}),
    Case("LeakyRelu", attributes={"alpha": 0.2}),
    Case("Softmax", attributes={"axis": 1}),
    Case("Clip", constants=(np.float32(0), np.float32(6))),
    Case("Clip", constants=(np.float32(0),)),
    Case("Clip", constants=(None, np.float32(0.5))),
    Case("Clip"),
    Case("Gelu", opset=20),
    Case("Gelu", attributes={"approximate": "tanh"}, opset=20),
    Case("Cast", attributes={"to": TensorProto.FLOAT}),
]
NORMALISATIONS = [
    Case(
        "BatchNormalization",
        constants=(floats(4), floats(4, seed=2), floats(4, seed=3), np.abs(floats(4, seed=4))),
        attributes={"epsilon": 1e-3},
    ),
    Case("InstanceNormalization", constants=(floats(4), floats(4, seed=2))),
    Case("LayerNormalization", (1, 5, 6), (floats(6), floats(6, seed=2))),
    Case("LayerNormalization", (1, 5, 6), (floats(5, 6),), {"axis": 1, "epsilon": 1e-2}),
]
REDUCTIONS = [
    *(Case(f"Reduce{what}", constants=(ints(2, 3),)) for what in ("Mean", "Max", "Min", "L2")),
    Case("ReduceMean", attributes={"axes": [-1], "keepdims": 0}, opset=13),
    Case("ReduceSum", constants=(ints(1),), attributes={"keepdims": 0}),
    Case("ReduceSum", attributes={"noop_with_empty_axes": 1}),
    Case("ReduceMax", attributes={"keepdims": 0}),
]
SHAPES = [
    Case("Concat", constants=(floats(1, 2, 7, 9),), attributes={"axis": 1}),
    Case("Split", constants=(ints(1, 3),), attributes={"axis": 1}, outputs=2),
    Case("Split", (1, 5, 3), attributes={"axis": 1, "num_outputs": 2}, outputs=2),
    Case("Slice", (5, 4), (ints(1), ints(3))),
    Case("Slice", constants=(ints(1, -4), ints(2**62, -1), ints(1, 3), ints(2, 1))),
    Case("Slice", constants=(ints(-1), ints(-(2**62)), ints(2), ints(-2))),
    Case("Gather", constants=(np.array(-1),), attributes={"axis": 1}),
    Case("Gather", constants=(np.array([[0, 2], [1, 3]]),), attributes={"axis": 2}),
    Case("Reshape", constants=(ints(0, -1, 3),)),
    Case("Flatten"),
    Case("Flatten", attributes={"axis": -1}),
    Case("Squeeze", (1, 4, 1, 1), (ints(2, -1),)),
    Case("Squeeze", (1, 4, 1, 1)),
    Case("Unsqueeze", (4, 5), (ints(0, -1),)),
    Case("Transpose", attributes={"perm": [0, 2, 3, 1]}),
    Case("Transpose"),
    Case("Expand", (1, 4, 1), (ints(3, 1, 1, 5),)),
    Case("Tile", (1, 4, 2), (ints(1, 1, 3),)),
    Case("Pad", constants=(ints(0, 0, 1, 2, 0, 0, 0, 1),)),
    Case("Pad", constants=(ints(1, 2), np.float32(0.5), ints(-1))),
    Case("Pad", constants=(ints(0, 0, 1, 2, 0, 0, 3, 1),), attributes={"mode": "reflect"}),
    Case("Pad", constants=(ints(0, 0, 1, 2, 0, 0, 3, 1),), attributes={"mode": "edge"}),
    Case("DepthToSpace", attributes={"blocksize": 2}),
    Case("DepthToSpace", attributes={"blocksize": 2, "mode": "CRD"}),
]
DOUBLE = (None, np.array([1, 1, 2, 2], np.float32))
SIZES = (None, None, ints(1, 4, 12, 13))
RESIZES = [
    Case("Resize", constants=DOUBLE, attributes={"mode": "nearest"}),
    Case(
        "Resize",
        constants=SIZES,
        attributes={
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
    ),
    Case("Resize", constants=SIZES, attributes={"mode": "linear"}),
    Case(
        "Resize",
        constants=SIZES,
        attributes={"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
]


def ids(cases: Sequence[Case]) -> list[str]:
    return [str(case) for case in cases]


ALL = [
    *CONVOLUTIONS,
    *POOLS,
    *PRODUCTS,
    *ELEMENTWISE,
    *NORMALISATIONS,
    *REDUCTIONS,
    *SHAPES,
    *RESIZES,
]


@pytest.mark.parametrize("case", ALL, ids=ids(ALL))
def test_operator_gives_what_onnx_runtime_gives(case: Case) -> None:
    check(case)


def test_every_operator_of_the_table_is_tested() -> None:
    assert OPERATORS.keys() - {case.operator for case in ALL} == {"IsNaN", "Where"}


def test_where_chooses_by_a_constant() -> None:
    mask = np.random.default_rng(0).random((7, 9)) < 0.5
    graph = helper.make_graph(
        [helper.make_node("Where", ["mask", "x", "other"], ["y"])],
        "where",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, PICTURE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [from_array(mask, "mask"), from_array(np.float32(-1), "other")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    tensor = floats(*PICTURE)
    made = OnnxModule(model)(torch.from_numpy(tensor)).numpy()
    np.testing.assert_array_equal(made, run(model, tensor))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("LRN", attributes={"size": 3}), r"operator LRN \('y0'\) cannot run on a device"),
        (Case("Pow", constants=(floats(9),)), "more than one exponent"),
        (
            Case("Resize", constants=SIZES, attributes={"mode": "cubic"}),
            "resizes by cubic with half_pixel",
        ),
        (
            Case("MaxPool", attributes={**K3, "dilations": [2, 2], "pads": [0, 0, 1, 1]}),
            "asymmetric pads and dilations",
        ),
        (Case("Cast", attributes={"to": TensorProto.UINT8}), "casts to type 2"),
    ],
    ids=lambda value: str(value),
)
def test_what_torch_cannot_do_is_named(case: Case, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        OnnxModule(model_of(case))(torch.zeros(case.shape))


def test_a_shape_from_data_is_refused() -> None:
    model = model_of(Case("Reshape", constants=(ints(-1),)))
    model.graph.node[0].input[1] = "x"
    with pytest.raises(BuildError, match=r"operator Reshape \('y0'\) takes input 1 from data"):
        OnnxModule(model)

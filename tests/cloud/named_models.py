"""Small ONNX models with tensors of their own names, in Triton's layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper, save_model

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def write_scale(
    version: Path, *, factor: float = 2.0, batched: bool = True, external: bool = False
) -> None:
    """x FP32 [n, 3] and y INT64 [n, 1] -> scaled = x * factor + y, count = y + 1; or without n."""
    axis: list[str | int] = ["n"] if batched else []
    nodes = [
        helper.make_node("Cast", ["y"], ["float"], to=FLOAT),
        helper.make_node("Mul", ["x", "factor"], ["product"]),
        helper.make_node("Add", ["product", "float"], ["scaled"]),
        helper.make_node("Add", ["y", "one"], ["count"]),
    ]
    graph = helper.make_graph(
        nodes,
        "scale",
        [
            helper.make_tensor_value_info("x", FLOAT, [*axis, 3]),
            helper.make_tensor_value_info("y", INT64, [*axis, 1]),
        ],
        [
            helper.make_tensor_value_info("scaled", FLOAT, [*axis, 3]),
            helper.make_tensor_value_info("count", INT64, [*axis, 1]),
        ],
        [
            numpy_helper.from_array(np.full(3, factor, np.float32), "factor"),
            numpy_helper.from_array(np.array([1], np.int64), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    version.mkdir(parents=True, exist_ok=True)
    save_model(
        model,
        str(version / "model.onnx"),
        save_as_external_data=external,
        location="weights.bin",
        size_threshold=0,
    )


def write_config(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(text)


SCALE_CONFIG = """
name: "scale"
backend: "onnxruntime"
max_batch_size: 8
input [
  { name: "x" data_type: TYPE_FP32 dims: [ 3 ] },
  { name: "y" data_type: TYPE_INT64 dims: [ 1 ] }
]
output [ { name: "scaled" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "labels.txt" } ]
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 4 ]
  max_queue_delay_microseconds: 500
  default_queue_policy { default_timeout_microseconds: 30000000 }
}
"""


def write_count(version: Path) -> None:
    """k INT64 [1] -> turns FP32 [1], k loops later."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["before", "one_more"], ["after"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", FLOAT, [1]),
        ],
        [numpy_helper.from_array(np.ones(1, np.float32), "one_more")],
    )
    nodes = [
        helper.make_node("Squeeze", ["k", "first"], ["often"]),
        helper.make_node("Loop", ["often", "true", "zero"], ["turns"], body=body),
    ]
    constants = {"first": np.zeros(1, np.int64), "true": np.array(True), "zero": _ZERO}
    _write_from_k(version, nodes, "turns", constants)


def write_fill(version: Path) -> None:
    """k INT64 [1] -> ones FP32 [k]."""
    nodes = [helper.make_node("Expand", ["one", "k"], ["ones"])]
    _write_from_k(version, nodes, "ones", {"one": np.ones(1, np.float32)})


_ZERO = np.zeros(1, np.float32)


def _write_from_k(
    version: Path, nodes: list[NodeProto], output: str, constants: Mapping[str, Any]
) -> None:
    graph = helper.make_graph(
        nodes,
        output,
        [helper.make_tensor_value_info("k", INT64, [1])],
        [helper.make_tensor_value_info(output, FLOAT, ["n"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    version.mkdir(parents=True)
    save_model(model, str(version / "model.onnx"))

"""ONNX graphs with all that depends on sizes alone computed beforehand.

With a batch of one every size is known; ONNX Runtime's basic optimizations then turn chains of Shape,
Gather and Concat into constants and keep to ONNX's own operators.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, helper
from onnx.numpy_helper import to_array

from .onnx_graph import OnnxCut
from .onnx_source import copy_of
from .quiet import quiet

_SQRT2 = 2**0.5
_CLOSE = 1e-4


def fold(model: ModelProto) -> ModelProto:
    """The model for a batch of one, constants folded; its other sizes must be known."""
    fixed = copy_of(model)
    for value in (fixed.graph.input[0], fixed.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    with (
        quiet("folding of the ONNX model"),
        tempfile.TemporaryDirectory(prefix="hybridge-fold-") as folder,
    ):
        file = Path(folder) / "folded.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(file)
        options.log_severity_level = 4
        onnxruntime.InferenceSession(
            fixed.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        folded = onnx.load(file)
    _join_gelus(folded)
    return pruned(folded)


def prefix(model: ModelProto, cut: OnnxCut) -> ModelProto:
    """The graph from the input to a cut, which becomes its output."""
    result = copy_of(model)
    del result.graph.output[:]
    result.graph.output.append(
        helper.make_tensor_value_info(cut.tensor, onnx.TensorProto.FLOAT, [1, *cut.shape])
    )
    return pruned(result)


def pruned(model: ModelProto) -> ModelProto:
    """The model without nodes and weights that its outputs do not need."""
    needed = {value.name for value in model.graph.output}
    kept: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    kept.reverse()
    weights = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    graph = helper.make_graph(
        kept, "folded", list(model.graph.input), list(model.graph.output), weights
    )
    result = helper.make_model(graph, opset_imports=model.opset_import)
    result.ir_version = model.ir_version
    return result


def _join_gelus(model: ModelProto) -> None:
    """x * (1 + erf(x / sqrt 2)) / 2, in any order, as one Gelu: LiteRT has no Erf."""
    graph = model.graph
    scalars = {
        tensor.name: float(to_array(tensor).reshape(-1)[0])
        for tensor in graph.initializer
        if int(np.prod(tensor.dims)) == 1
    }
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def scaled(node: NodeProto | None, operator: str, by: float) -> str | None:
        """What a node multiplies (adds, divides) by a constant."""
        if node is None or node.op_type != operator:
            return None
        pairs = [tuple(node.input), tuple(reversed(node.input))]
        for other, constant in pairs[:1] if operator == "Div" else pairs:
            if abs(scalars.get(constant, np.inf) - by) < _CLOSE:
                return str(other)
        return None

    def half_of(name: str) -> str | None:
        return scaled(makers.get(name), "Mul", 0.5) or scaled(makers.get(name), "Div", 2.0)

    def products(name: str) -> list[NodeProto]:
        return [node for node in readers.get(name, []) if node.op_type == "Mul"]

    def ends(one_plus: str, x: str) -> NodeProto | None:
        for product in products(one_plus):
            (other,) = [name for name in product.input if name != one_plus] or [""]
            if half_of(other) == x:
                return product
            wanted = x if half_of(product.output[0]) == one_plus else None
            if other == x:
                for last in readers.get(product.output[0], []):
                    if half_of(last.output[0]) == product.output[0]:
                        return last
            if wanted is not None:
                for last in products(product.output[0]):
                    if x in last.input:
                        return last
        return None

    for erf in [node for node in graph.node if node.op_type == "Erf"]:
        inner = makers.get(erf.input[0])
        x = scaled(inner, "Div", _SQRT2) or scaled(inner, "Mul", 1 / _SQRT2)
        if x is None:
            continue
        for one_plus in readers.get(erf.output[0], []):
            last = ends(one_plus.output[0], x) if scaled(one_plus, "Add", 1.0) else None
            if last is not None:
                last.CopyFrom(helper.make_node("Gelu", [x], [last.output[0]], name=last.name))
                break
    # The opset may be older than Gelu: the graph is for our own table, which has it.

"""ONNX graphs with all that depends on sizes alone computed beforehand.

With a batch of one every size is known; ONNX Runtime's basic optimizations then turn chains of
Shape, Gather and Concat into constants and keep to ONNX's own operators.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, helper
from onnx.numpy_helper import from_array, to_array

from ...shared.errors import BuildError
from .litert import relative_error
from .onnx_source import copy_of, random_inputs
from .quiet import quiet

_SQRT2, _ROOT_HALF = 2**0.5, 0.5**0.5
_CLOSE = 1e-4
_SAME_ANSWER = 1e-5


def fold(model: ModelProto) -> ModelProto:
    """The model for a batch of one, constants folded; its other sizes must be known."""
    fixed = copy_of(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        for dim in value.type.tensor_type.shape.dim[:1]:
            if not dim.HasField("dim_value"):
                dim.dim_value = 1
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
    return pruned(folded)


def with_constant_reshapes(model: ModelProto) -> ModelProto:
    """The model with shapes that it computes from the batch written down, or as it was.

    Shape inference does not follow every such chain (that of a VGG16 from tf2onnx it does not), and
    behind it no size is known, so that no cut is found. The result is kept only if it answers as
    the model does, for two items where the batch is dynamic.
    """
    known = {tensor.name for tensor in model.graph.initializer}
    if all(n.op_type != "Reshape" or n.input[1] in known for n in model.graph.node):
        return model
    try:
        folded = onnx.shape_inference.infer_shapes(fold(model)).graph
        sizes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*folded.value_info, *folded.output)
        }
        result = copy_of(model)
        for node in result.graph.node:
            made = sizes.get(node.output[0], [])
            if node.op_type == "Reshape" and node.input[1] not in known and made and all(made):
                node.input[1] = f"{node.output[0]}/shape"
                constant = np.array([0, *made[1:]], np.int64)  # 0: as many items as come in
                result.graph.initializer.append(from_array(constant, node.input[1]))
        result = pruned(result)
        return result if _same_answers(model, result) else model
    except BuildError:
        return model


def _same_answers(model: ModelProto, other: ModelProto) -> bool:
    inputs = random_inputs(model, items=2)
    with quiet("comparison of ONNX models"):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        one, two = (
            onnxruntime.InferenceSession(
                each.SerializeToString(), options, providers=["CPUExecutionProvider"]
            ).run(None, inputs)
            for each in (model, other)
        )
        return all(
            a.shape == b.shape and relative_error(b, a) < _SAME_ANSWER
            for a, b in zip(one, two, strict=True)
        )


def prefix(model: ModelProto, outputs: Mapping[str, Sequence[int]]) -> ModelProto:
    """The graph from its first input to float32 tensors of these sizes, now its outputs."""
    result = copy_of(model)
    del result.graph.output[:], result.graph.input[1:]
    result.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes)
        for name, sizes in outputs.items()
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


def with_gelus(model: ModelProto) -> ModelProto:
    """The model with x * (1 + erf(x / sqrt 2)) / 2, in any order, as one Gelu: LiteRT has no Erf.

    For our own table of operators: the opset may be older than Gelu.
    """
    result = copy_of(model)
    links = _Links(result)
    for erf in [node for node in result.graph.node if node.op_type == "Erf"]:
        x = links.scaled(erf.input[0], "Div", _SQRT2) or links.scaled(
            erf.input[0], "Mul", _ROOT_HALF
        )
        if x is None:
            continue
        for one_plus in links.readers.get(erf.output[0], []):
            plus = one_plus.output[0]
            last = links.end_of_gelu(plus, x) if links.scaled(plus, "Add", 1.0) else None
            if last is not None:
                last.CopyFrom(helper.make_node("Gelu", [x], [last.output[0]], name=last.name))
                break
    return pruned(result)


def without_nan_guards(model: ModelProto) -> ModelProto:
    """The model with Softmax for Where(IsNaN(Softmax), 0, Softmax): masked attention from torch.

    Only a row that is masked out altogether is NaN; a device would pay two operators for that in
    every attention.
    """
    result = copy_of(model)
    links = _Links(result)
    for guard in [node for node in result.graph.node if node.op_type == "Where"]:
        condition, values = links.makers.get(guard.input[0]), guard.input[2]
        softmax = links.makers.get(values)
        if condition is None or condition.op_type != "IsNaN" or condition.input[0] != values:
            continue
        if softmax is not None and softmax.op_type == "Softmax":
            identity = helper.make_node("Identity", [values], [guard.output[0]], name=guard.name)
            guard.CopyFrom(identity)
    return pruned(result)


class _Links:
    """Who makes and who reads each tensor of a graph, and the scalars among its constants."""

    def __init__(self, model: ModelProto) -> None:
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self._scalars = {
            tensor.name: float(to_array(tensor).reshape(-1)[0])
            for tensor in model.graph.initializer
            if int(np.prod(tensor.dims)) == 1
        }

    def scaled(self, name: str, operator: str, by: float) -> str | None:
        """What was divided by, multiplied with or added to a constant to make this tensor."""
        node = self.makers.get(name)
        if node is None or node.op_type != operator:
            return None
        first, second = node.input
        if abs(self._scalars.get(second, np.inf) - by) < _CLOSE:
            return str(first)
        if operator != "Div" and abs(self._scalars.get(first, np.inf) - by) < _CLOSE:
            return str(second)
        return None

    def end_of_gelu(self, one_plus: str, x: str) -> NodeProto | None:
        """The last of the two products of `one_plus` with x and 1/2."""
        for product in self._products(one_plus):
            made = product.output[0]
            factors = [name for name in product.input if name != one_plus]
            if any(self._half_of(name) == x for name in factors):
                return product
            for last in self._products(made):
                if x in factors and self._half_of(last.output[0]) == made:
                    return last
                if self._half_of(made) == one_plus and x in last.input:
                    return last
        return None

    def _half_of(self, name: str) -> str | None:
        return self.scaled(name, "Mul", 0.5) or self.scaled(name, "Div", 2.0)

    def _products(self, name: str) -> list[NodeProto]:
        return [node for node in self.readers.get(name, []) if node.op_type in ("Mul", "Div")]

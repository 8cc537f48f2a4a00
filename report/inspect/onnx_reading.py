"""Reads the graph blob of a bundle. Needs onnx, which comes with the extra `build`."""

from collections.abc import Iterable, Mapping
from math import prod

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from ...shared.errors import BundleError
from .graph import Graph, Operator

Shape = tuple[int, ...]

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
"""What is counted as weights: shapes and axes are not."""


def read_graph(encoded: bytes) -> Graph:
    """The graph of an ONNX file whose weights need not be there; BundleError if it is none."""
    try:
        model = onnx.load_from_string(encoded)
        shapes = _shapes(model)
    except (DecodeError, ValueError, onnx.shape_inference.InferenceError) as error:
        raise BundleError(f"the large model's graph cannot be read: {error}") from error
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    floats = {each.name for each in model.graph.initializer if each.data_type in _FLOATS}
    inputs = tuple(value.name for value in model.graph.input if value.name not in weights)
    depends = set(inputs)
    counted: set[str] = set()
    operators = []
    for node in model.graph.node:
        reads = tuple(dict.fromkeys(name for name in _reads(node) if name in depends))
        if not reads:
            continue  # a constant
        writes = tuple(name for name in node.output if name)
        depends.update(writes)
        own = {name for name in node.input if name in floats} - counted
        counted |= own
        operators.append(
            Operator(
                name=_name(node, weights, shapes),
                detail=_detail(node, weights),
                reads=reads,
                writes=writes,
                shape=shapes.get(writes[0], ())[1:],
                multiply_adds=_multiply_adds(node, weights | shapes),
                parameters=sum(prod(weights[name]) for name in own),
            )
        )
    outputs = tuple(value.name for value in model.graph.output)
    return Graph(inputs=inputs, outputs=outputs, operators=tuple(operators))


def _shapes(model: ModelProto) -> dict[str, Shape]:
    """Sizes for one item, of all tensors for which they can be known."""
    fixed = ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    return {value.name: shape for value in values if (shape := _known(value))}


def _known(value: ValueInfoProto) -> Shape:
    dims = value.type.tensor_type.shape.dim
    sizes = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in dims]
    return tuple(sizes) if all(sizes) else ()


def _reads(node: NodeProto) -> Iterable[str]:
    """A node's tensors, those its subgraphs take from outside included."""
    yield from node.input
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
        for graph in graphs:
            for inner in graph.node:
                yield from _reads(inner)


def _attributes(node: NodeProto) -> dict[str, object]:
    simple = (AttributeProto.INT, AttributeProto.INTS)
    return {
        each.name: helper.get_attribute_value(each)
        for each in node.attribute
        if each.type in simple
    }


def _name(node: NodeProto, weights: Mapping[str, Shape], shapes: Mapping[str, Shape]) -> str:
    groups = _attributes(node).get("group", 1)
    if node.op_type == "Conv" and groups != 1:
        channels = shapes.get(node.input[0], (0, 0))[1]
        return "Depthwise conv" if groups == channels else f"Grouped conv ({groups})"
    return node.op_type


def _detail(node: NodeProto, weights: Mapping[str, Shape]) -> str:
    """What tells one such operator from another, such as `3×3/2 → 64` of a convolution."""
    attributes = _attributes(node)
    shape = next((weights[name] for name in node.input[1:2] if name in weights), ())
    if node.op_type in ("Conv", "ConvTranspose", "MaxPool", "AveragePool"):
        kernel = attributes.get("kernel_shape", shape[2:])
        strides = attributes.get("strides", [1])
        assert isinstance(kernel, list | tuple)
        assert isinstance(strides, list | tuple)
        words = "\u00d7".join(map(str, kernel))
        words += f"/{strides[0]}" if set(strides) != {1} else ""
        is_conv = node.op_type == "Conv" and len(shape) > 0
        return f"{words} → {shape[0]}" if is_conv else words
    if node.op_type == "Gemm" and shape:
        return f"→ {shape[0 if attributes.get('transB') else 1]}"
    if node.op_type == "MatMul" and shape:
        return f"→ {shape[-1]}"
    return ""


def _multiply_adds(node: NodeProto, sizes: Mapping[str, Shape]) -> int:
    """Of convolutions and matrix products, which are nearly all there is."""
    made = sizes.get(node.output[0], ())
    taken = sizes.get(node.input[0], ()) if node.input else ()
    second = sizes.get(node.input[1], ()) if len(node.input) > 1 else ()
    if not made or not taken or not second:
        return 0
    match node.op_type:
        case "Conv":
            return prod(made) * prod(second[1:])
        case "ConvTranspose":
            return prod(taken) * prod(second[1:])
        case "MatMul":
            return prod(made) * taken[-1]
        case "Gemm":
            return prod(made) * taken[0 if _attributes(node).get("transA") else -1]
    return 0

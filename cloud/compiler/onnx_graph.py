"""ONNX graphs: where a model can be cut, its tails, and whole models to serve.

Every graph made here takes what crosses the link, so that dequantising, transposing and normalising
are its first nodes. Their names begin with `hybridge/`, which no exporter uses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from onnx.numpy_helper import from_array

from ...shared.errors import BuildError
from ...shared.preprocess import PreprocessSpec
from .onnx_source import BATCH, copy_of

TAIL_INPUT = "cut"
PIXELS_INPUT = "pixels"
OWN = "hybridge/"

_NHWC_TO_NCHW = (0, 3, 1, 2)
_BATCHES = (3, 5)


@dataclass(frozen=True, slots=True)
class OnnxCut:
    """A tensor that alone separates the input from the output; `shape` is per item, as in ONNX."""

    node: int
    tensor: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wire:
    """What a tail takes: int8 with a scale and a zero point, or float32 without; channels last."""

    shape: tuple[int, ...]
    channels_first: bool
    scale: float | None = None
    zero_point: int | None = None

    def __post_init__(self) -> None:
        if (self.scale is None) != (self.zero_point is None):
            raise ValueError("scale and zero_point come together")
        if self.channels_first and len(self.shape) != 3:
            raise ValueError(f"shape {self.shape} has no channels to put first")


def input_of(model: ModelProto) -> tuple[str, tuple[int | None, ...]]:
    """Name and sizes of the one input; None stands for a dynamic size."""
    value = model.graph.input[0]
    return value.name, _sizes(value)


def batch_is_dynamic(model: ModelProto) -> bool:
    """Whether the model takes any number of items at once."""
    return input_of(model)[1][0] is None


def find_cuts(model: ModelProto) -> list[OnnxCut]:
    """The single-tensor cuts of known size per item, float32 and batch first, from the input on."""
    shapes = _shapes_per_item(model)
    graph_input = model.graph.input[0]
    output = model.graph.output[0].name
    depends = {graph_input.name}
    last_use: dict[str, int] = {}
    for index, node in enumerate(model.graph.node):
        reads = list(_reads(node))
        last_use.update(dict.fromkeys(reads, index))
        if depends.intersection(reads):
            depends.update(name for name in node.output if name)
    last_use[output] = len(model.graph.node)

    cuts: list[OnnxCut] = []
    live = {graph_input.name}
    for index, node in enumerate(model.graph.node):
        if not depends.intersection(_reads(node)):
            continue
        live.update(name for name in node.output if name)
        live = {name for name in live if last_use.get(name, -1) > index}
        if len(live) != 1 or output in live:
            continue
        (tensor,) = live
        if tensor in shapes and not (cuts and cuts[-1].tensor == tensor):
            cuts.append(OnnxCut(node=index, tensor=tensor, shape=shapes[tensor]))
    return cuts


def _shapes_per_item(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """The shapes of float32 tensors whose first size is the batch and whose others are known.

    Shape inference loses a symbolic batch at the first Reshape; two numbers it does not lose.
    """
    batches = _BATCHES if batch_is_dynamic(model) else (1,)
    found = [_inferred_shapes(model, batch=batch) for batch in batches]
    return {
        name: shape
        for name, shape in found[0].items()
        if shape and all(other.get(name) == shape for other in found)
    }


def _inferred_shapes(model: ModelProto, *, batch: int) -> dict[str, tuple[int, ...]]:
    """The sizes behind the first of float32 tensors that hold `batch` items."""
    fixed = copy_of(model)
    for value in (fixed.graph.input[0], fixed.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    shapes: dict[str, tuple[int, ...]] = {}
    for value in onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph.value_info:
        first, *rest = _sizes(value) or (None,)
        known = [size for size in rest if size is not None]
        is_float = value.type.tensor_type.elem_type == TensorProto.FLOAT
        if is_float and first == batch and len(known) == len(rest):
            shapes[value.name] = tuple(known)
    return shapes


def with_outputs(model: ModelProto, cuts: Sequence[OnnxCut]) -> ModelProto:
    """The model with the cuts as outputs too, before its own; for measuring."""
    result = copy_of(model)
    own = result.graph.output[0]
    del result.graph.output[:]
    result.graph.output.extend(
        helper.make_tensor_value_info(cut.tensor, TensorProto.FLOAT, None) for cut in cuts
    )
    result.graph.output.append(own)
    return result


def extract_tail(model: ModelProto, *, cut: OnnxCut, wire: Wire) -> ModelProto:
    """The graph from a cut to the output, with `cut` [n, *wire.shape] as its input.

    First nodes: DequantizeLinear for an int8 wire, Transpose for channels first, Reshape where the
    two runtimes differ in sizes of one ([k] and [k, 1, 1]).
    """
    kept: list[NodeProto] = []
    needed = {model.graph.output[0].name}
    for node in reversed(model.graph.node):
        if needed.intersection(node.output) and cut.tensor not in node.output:
            kept.append(node)
            needed.update(_reads(node))
    kept.reverse()
    if model.graph.input[0].name in needed or cut.tensor not in needed:
        raise BuildError(f"{cut.tensor!r} does not separate the model's input from its output")

    front = _Front(TAIL_INPUT)
    if wire.scale is not None:
        scale = front.constant("scale", np.array(wire.scale, np.float32))
        zero_point = front.constant("zero_point", np.array(wire.zero_point, np.int8))
        front.then("DequantizeLinear", scale, zero_point)
    shape = wire.shape
    if wire.channels_first:
        front.transpose(_NHWC_TO_NCHW)
        shape = (shape[2], shape[0], shape[1])
    if shape != cut.shape:
        front.then("Reshape", front.constant("shape", np.array([-1, *cut.shape], np.int64)))
    dtype = TensorProto.FLOAT if wire.scale is None else TensorProto.INT8
    batch = BATCH if batch_is_dynamic(model) else 1
    return _rebuilt(
        model,
        graph_input=helper.make_tensor_value_info(TAIL_INPUT, dtype, [batch, *wire.shape]),
        nodes=[*front.ending_in(cut.tensor), *kept],
        constants=front.constants,
    )


def whole_from_pixels(model: ModelProto, *, spec: PreprocessSpec) -> ModelProto:
    """The whole model behind normalisation: its input is `pixels`, uint8 [n, size, size, 3]."""
    name, sizes = input_of(model)
    size = spec.size_px
    channels_last = sizes[1:] == (size, size, 3)
    if not channels_last and sizes[1:] != (3, size, size):
        raise BuildError(f"the model takes {sizes[1:]}, preprocessing makes {(size, size, 3)}")
    front = _Front(PIXELS_INPUT)
    front.cast_to_float()
    front.then("Sub", front.constant("mean", np.array(spec.mean, np.float32)))
    front.then("Div", front.constant("std", np.array(spec.std, np.float32)))
    if not channels_last:
        front.transpose(_NHWC_TO_NCHW)
    batch = BATCH if batch_is_dynamic(model) else 1
    return _rebuilt(
        model,
        graph_input=helper.make_tensor_value_info(
            PIXELS_INPUT, TensorProto.UINT8, [batch, size, size, 3]
        ),
        nodes=[*front.ending_in(name), *model.graph.node],
        constants=front.constants,
    )


class _Front:
    """A chain of nodes put before a graph."""

    def __init__(self, graph_input: str) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._last = graph_input

    def constant(
        self, name: str, value: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"
    ) -> str:
        self.constants.append(from_array(value, OWN + name))
        return OWN + name

    def then(self, operator: str, *constants: str) -> None:
        self._append(helper.make_node(operator, [self._last, *constants], [self._next()]))

    def transpose(self, order: tuple[int, ...]) -> None:
        self._append(helper.make_node("Transpose", [self._last], [self._next()], perm=order))

    def cast_to_float(self) -> None:
        self._append(helper.make_node("Cast", [self._last], [self._next()], to=TensorProto.FLOAT))

    def ending_in(self, tensor: str) -> list[NodeProto]:
        """The chain with its last output renamed; a chain of none becomes an Identity."""
        if not self.nodes:
            self.then("Identity")
        self.nodes[-1].output[0] = tensor
        return self.nodes

    def _next(self) -> str:
        return f"{OWN}{len(self.nodes)}"

    def _append(self, node: NodeProto) -> None:
        node.name = f"{OWN}{node.op_type}"
        self.nodes.append(node)
        self._last = node.output[0]


def _rebuilt(
    model: ModelProto,
    *,
    graph_input: ValueInfoProto,
    nodes: Sequence[NodeProto],
    constants: Sequence[TensorProto],
) -> ModelProto:
    used = {name for node in nodes for name in _reads(node)}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in used]
    graph = helper.make_graph(
        list(nodes), "hybridge", [graph_input], list(model.graph.output), [*constants, *weights]
    )
    result = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    result.producer_name = "hybridge"
    return result


def _reads(node: NodeProto) -> Iterator[str]:
    """The tensors a node reads, those its subgraphs take from outside included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
        for graph in graphs:
            inside = {value.name for value in graph.input} | {t.name for t in graph.initializer}
            for inner in graph.node:
                yield from (name for name in _reads(inner) if name not in inside)
                inside.update(inner.output)


def _sizes(value: ValueInfoProto) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)

"""ONNX graphs: where a model can be cut, its tails, and whole models to serve.

Every graph made here takes what crosses the link, so that dequantising, transposing and normalising
are its first nodes. Their names begin with `hybridge/`, which no exporter uses. Beside it every
graph takes all the model's further inputs, whether it needs them or not, and gives all its outputs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from onnx.numpy_helper import from_array

from ...shared.errors import BuildError
from ...shared.preprocess import PreprocessSpec
from ..weights import OWN
from .onnx_flow import OnnxFlow, batch_is_dynamic, picture_input, reads, sizes_of
from .onnx_source import BATCH, copy_of

TAIL_INPUT = "cut"
PIXELS_INPUT = "pixels"

_NHWC_TO_NCHW = (0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class OnnxCut:
    """Tensors that together separate the picture from the outputs.

    One tensor: its name, its shape per item as in ONNX, and no `parts`. Several: `parts` holds
    them, the name is all of theirs and the shape (N,), as they cross the link one after the other.
    `node` is the last node before the cut.
    """

    node: int
    tensor: str
    shape: tuple[int, ...]
    parts: tuple["OnnxCut", ...] = ()

    @classmethod
    def joined(cls, parts: Sequence["OnnxCut"]) -> "OnnxCut":
        """The cut of one tensor, or of several."""
        if len(parts) == 1:
            return parts[0]
        size = sum(math.prod(part.shape) for part in parts)
        name = "+".join(part.tensor for part in parts)
        return cls(max(part.node for part in parts), name, (size,), tuple(parts))

    @property
    def tensors(self) -> tuple["OnnxCut", ...]:
        """Each tensor by itself."""
        return self.parts or (self,)


@dataclass(frozen=True, slots=True)
class Wire:
    """What a tail takes: int8 with a scale and a zero point, or float32 without; channels last.

    Several tensors cross as one flat one: then `shape` is (N,) and the rest stands in `parts`.
    """

    shape: tuple[int, ...]
    channels_first: bool = False
    scale: float | None = None
    zero_point: int | None = None
    parts: tuple["Wire", ...] = ()

    def __post_init__(self) -> None:
        if (self.scale is None) != (self.zero_point is None):
            raise ValueError("scale and zero_point come together")
        if self.channels_first and len(self.shape) != 3:
            raise ValueError(f"shape {self.shape} has no channels to put first")
        if len({part.is_int8 for part in self.parts}) > 1:
            raise ValueError("the parts of a wire have one dtype")

    @classmethod
    def joined(cls, parts: Sequence["Wire"]) -> "Wire":
        """The wire of one tensor, or of several."""
        if len(parts) == 1:
            return parts[0]
        return cls(shape=(sum(math.prod(part.shape) for part in parts),), parts=tuple(parts))

    @property
    def is_int8(self) -> bool:
        return any(part.scale is not None for part in (self, *self.parts))


def input_of(model: ModelProto) -> tuple[str, tuple[int | None, ...]]:
    """Name and sizes of the input that takes the picture; None stands for a dynamic size."""
    value = picture_input(model)
    return value.name, sizes_of(value)


def find_cuts(model: ModelProto) -> list[OnnxCut]:
    """The single-tensor cuts of known size per item, float32 and batch first, from the input on."""
    found = OnnxFlow.of(model)
    return [
        OnnxCut(node=node, tensor=tensor, shape=found.shapes[tensor])
        for node, tensor in found.flow.separators()
        if tensor in found.shapes
    ]


def with_outputs(model: ModelProto, cuts: Sequence[OnnxCut]) -> ModelProto:
    """The model with the cuts' tensors as outputs too, before its own; for measuring."""
    result = copy_of(model)
    own = list(result.graph.output)
    names = {value.name for value in own}
    del result.graph.output[:]
    result.graph.output.extend(
        helper.make_tensor_value_info(part.tensor, TensorProto.FLOAT, None)
        for cut in cuts
        for part in cut.tensors
        if part.tensor not in names
    )
    result.graph.output.extend(own)
    return result


def extract_tail(model: ModelProto, *, cut: OnnxCut, wire: Wire) -> ModelProto:
    """The graph from a cut to the outputs, with `cut` [n, *wire.shape] as its input.

    First nodes, of each part of a cut of several tensors: Slice; of each: DequantizeLinear for an
    int8 wire, Transpose for channels first, Reshape where the two runtimes differ in sizes of one
    ([k] and [k, 1, 1]) or where it was flat.
    """
    names = {part.tensor for part in cut.tensors}
    kept: list[NodeProto] = []
    needed = {value.name for value in model.graph.output}
    for node in reversed(model.graph.node):
        if (needed - names).intersection(node.output):
            kept.append(node)
            needed.update(reads(node))
    kept.reverse()
    if picture_input(model).name in needed or not names <= needed:
        raise BuildError(f"{cut.tensor!r} does not separate the model's input from its output")
    wires = wire.parts or (wire,)
    if len(wires) != len(cut.tensors):
        raise BuildError(f"{cut.tensor!r} are {len(cut.tensors)} tensors, the wire {len(wires)}")
    nodes: list[NodeProto] = []
    constants: list[TensorProto] = []
    start = 0
    for number, (part, own_wire) in enumerate(zip(cut.tensors, wires, strict=True)):
        front = _Front(TAIL_INPUT, prefix=f"{OWN}{number}/" if wire.parts else OWN)
        size = math.prod(own_wire.shape)
        if wire.parts:
            front.slice(start, start + size)
        front.values(own_wire, wanted=part.shape, flat=bool(wire.parts))
        start += size
        nodes.extend(front.ending_in(part.tensor))
        constants.extend(front.constants)
    dtype = TensorProto.INT8 if wire.is_int8 else TensorProto.FLOAT
    batch = BATCH if batch_is_dynamic(model) else 1
    return _rebuilt(
        model,
        graph_input=helper.make_tensor_value_info(TAIL_INPUT, dtype, [batch, *wire.shape]),
        nodes=[*nodes, *kept],
        constants=constants,
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

    def __init__(self, graph_input: str, *, prefix: str = OWN) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._last = graph_input
        self._prefix = prefix

    def slice(self, start: int, end: int) -> None:
        """Elements [start, end) of a flat tensor [n, N]."""
        bounds = {"start": start, "end": end, "axis": 1}
        self.then("Slice", *(self.constant(k, np.array([v], np.int64)) for k, v in bounds.items()))

    def values(self, wire: Wire, *, wanted: tuple[int, ...], flat: bool) -> None:
        """What came over a wire of one tensor, as real values in the model's own shape."""
        if wire.scale is not None:
            scale = self.constant("scale", np.array(wire.scale, np.float32))
            zero_point = self.constant("zero_point", np.array(wire.zero_point, np.int8))
            self.then("DequantizeLinear", scale, zero_point)
        shape = wire.shape
        if wire.channels_first:
            if flat:
                self.reshape(shape, name="nhwc")
                flat = False
            self.transpose(_NHWC_TO_NCHW)
            shape = (shape[2], shape[0], shape[1])
        if flat or shape != wanted:
            self.reshape(wanted, name="shape")

    def reshape(self, shape: tuple[int, ...], *, name: str) -> None:
        self.then("Reshape", self.constant(name, np.array([-1, *shape], np.int64)))

    def constant(
        self, name: str, value: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"
    ) -> str:
        self.constants.append(from_array(value, self._prefix + name))
        return self._prefix + name

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
        return f"{self._prefix}{len(self.nodes)}"

    def _append(self, node: NodeProto) -> None:
        node.name = f"{self._prefix}{node.op_type}"
        self.nodes.append(node)
        self._last = node.output[0]


def _rebuilt(
    model: ModelProto,
    *,
    graph_input: ValueInfoProto,
    nodes: Sequence[NodeProto],
    constants: Sequence[TensorProto],
) -> ModelProto:
    used = {name for node in nodes for name in reads(node)}
    used |= {value.name for value in model.graph.output}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in used]
    picture = picture_input(model).name
    inputs = [graph_input, *(value for value in model.graph.input if value.name != picture)]
    graph = helper.make_graph(
        list(nodes), "hybridge", inputs, list(model.graph.output), [*constants, *weights]
    )
    result = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    result.producer_name = "hybridge"
    return result

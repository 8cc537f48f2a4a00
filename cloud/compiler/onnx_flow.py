"""An ONNX graph as a flow of tensors, with the multiply-adds of every operator.

Work is a count, not a time: the same model gives the same figures on every machine. A product or
a convolution counts its multiply-adds, a pool its window per output, everything else that computes
one per output element, and moving data nothing.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from .flow import Flow, Step
from .onnx_source import copy_of

_BATCHES = (3, 5)
_PICTURE_AXES = 4
_MOVES = frozenset(
    (
        "Cast",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "DepthToSpace",
        "Dropout",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Pad",
        "Range",
        "Reshape",
        "Shape",
        "Size",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    )
)
Shape = tuple[int, ...]


@dataclass(frozen=True)
class OnnxFlow:
    """A graph's flow, and the shapes per item of the float32 tensors that have known ones."""

    flow: Flow
    shapes: Mapping[str, Shape]

    @classmethod
    def of(cls, model: ModelProto) -> "OnnxFlow":
        graph = model.graph
        picture = picture_input(model).name
        sizes = _all_sizes(model)
        steps = tuple(
            Step(
                tuple(dict.fromkeys(reads(node))),
                tuple(name for name in node.output if name),
                _work(node, sizes),
            )
            for node in graph.node
        )
        flow = Flow(
            steps=steps,
            picture=picture,
            results=tuple(value.name for value in graph.output),
            sides=frozenset(value.name for value in graph.input) - {picture},
        )
        return cls(flow=flow, shapes=_shapes_per_item(model))


def picture_input(model: ModelProto) -> ValueInfoProto:
    """The input that takes the picture: the only one of four axes, or else the first."""
    values = list(model.graph.input)
    pictures = [value for value in values if len(sizes_of(value)) == _PICTURE_AXES]
    return pictures[0] if len(pictures) == 1 else values[0]


def batch_is_dynamic(model: ModelProto) -> bool:
    """Whether the model takes any number of items at once."""
    return sizes_of(picture_input(model))[0] is None


def reads(node: NodeProto) -> Iterator[str]:
    """The tensors a node reads, those its subgraphs take from outside included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
        for graph in graphs:
            inside = {value.name for value in graph.input} | {t.name for t in graph.initializer}
            for inner in graph.node:
                yield from (name for name in reads(inner) if name not in inside)
                inside.update(inner.output)


def sizes_of(value: ValueInfoProto) -> tuple[int | None, ...]:
    """The sizes of a tensor as declared; None stands for a dynamic one."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)


def _shapes_per_item(model: ModelProto) -> dict[str, Shape]:
    """The shapes of float32 tensors whose first size is the batch and whose others are known.

    Shape inference loses a symbolic batch at the first Reshape; two numbers it does not lose.
    """
    dynamic = batch_is_dynamic(model)
    found = [_inferred_shapes(model, batch=batch) for batch in (_BATCHES if dynamic else (1,))]
    return {
        name: shape
        for name, shape in found[0].items()
        if shape and all(other.get(name) == shape for other in found)
    }


def _inferred_shapes(model: ModelProto, *, batch: int) -> dict[str, Shape]:
    """The sizes behind the first of float32 tensors that hold `batch` items."""
    shapes: dict[str, Shape] = {}
    graph = _inferred(model, batch=batch).graph
    for value in (*graph.value_info, *graph.output):
        first, *rest = sizes_of(value) or (None,)
        known = [size for size in rest if size is not None]
        is_float = value.type.tensor_type.elem_type == TensorProto.FLOAT
        if is_float and first == batch and len(known) == len(rest):
            shapes[value.name] = tuple(known)
    return shapes


def _inferred(model: ModelProto, *, batch: int) -> ModelProto:
    """The model with every dynamic first size set, and shapes inferred from it."""
    fixed = copy_of(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = batch
    return onnx.shape_inference.infer_shapes(fixed, data_prop=True)


def _all_sizes(model: ModelProto) -> dict[str, Shape]:
    """The whole shapes of all tensors that have known ones, for one item."""
    graph = _inferred(model, batch=1).graph
    sizes: dict[str, Shape] = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        found = sizes_of(value)
        known = tuple(size for size in found if size is not None)
        if len(known) == len(found):
            sizes[value.name] = known
    return sizes


def _work(node: NodeProto, sizes: Mapping[str, Shape]) -> int:
    made = sum(math.prod(sizes.get(name, (0,))) for name in node.output if name)
    given = [sizes.get(name, (0,)) for name in node.input]
    match node.op_type:
        case "Conv":
            return made * math.prod(given[1][1:])
        case "ConvTranspose":
            return math.prod(given[0]) * math.prod(given[1][1:])
        case "MatMul":
            return made * given[0][-1]
        case "Gemm":
            rows, columns = (*given[0], 0, 0)[:2]
            return made * (rows if _attribute(node, "transA") else columns)
        case "MaxPool" | "AveragePool":
            return made * math.prod(_window(node))
        case kind if kind in _MOVES:
            return 0
        case kind if kind.startswith(("Reduce", "Global")) or kind == "Softmax":
            return max(made, math.prod(given[0]))
        case _:
            return made


def _attribute(node: NodeProto, name: str) -> int:
    return next((int(each.i) for each in node.attribute if each.name == name), 0)


def _window(node: NodeProto) -> list[int]:
    return next((list(each.ints) for each in node.attribute if each.name == "kernel_shape"), [1])

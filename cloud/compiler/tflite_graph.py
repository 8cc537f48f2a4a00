"""TFLite graphs: where a model can be cut, and its heads as signatures of one file.

A head is the model's operator list up to a cut. All heads of a file share one buffer table, so ten
heads of a model are hardly larger than the model itself.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ...shared.errors import BuildError
from .flow import Flow, Step

INPUT_NAME = "tensor"
OUTPUT_NAME = "cut"

IDENTIFIER = b"TFL3"
_BUFFER_ALIGNMENT_BYTES = 16  # force_align of Buffer.data in the TFLite schema
_NO_TENSOR = -1
_PICTURE_AXES = 4
_TO_INT8 = ("float32", "int8")
_DTYPES = {schema.TensorType.FLOAT32: "float32", schema.TensorType.INT8: "int8"}


@dataclass(frozen=True, slots=True)
class TfliteCut:
    """What a head computes: a tensor, or several as `parts`.

    `operator` is the index of the last operator of the head, `shape` is per item and channels
    last; an int8 tensor has real = scale * (value - zero_point). Of several tensors `shape` is
    (N,), as they cross the link, and `tensor`, `scale` and `zero_point` stand in the parts alone.
    """

    operator: int
    tensor: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None
    parts: tuple["TfliteCut", ...] = ()

    @classmethod
    def joined(cls, parts: Sequence["TfliteCut"]) -> "TfliteCut":
        """The cut of one tensor, or of several."""
        if len(parts) == 1:
            return parts[0]
        dtypes = sorted({part.dtype for part in parts})
        return cls(
            operator=max(part.operator for part in parts),
            tensor=_NO_TENSOR,
            name="+".join(part.name for part in parts),
            shape=(sum(math.prod(part.shape) for part in parts),),
            dtype="+".join(dtypes),
            parts=tuple(parts),
        )

    @property
    def tensors(self) -> tuple["TfliteCut", ...]:
        """Each tensor by itself."""
        return self.parts or (self,)


def output_names(count: int) -> tuple[str, ...]:
    """The names of a head's outputs, in the order of the cut's tensors."""
    return (OUTPUT_NAME,) if count == 1 else tuple(f"{OUTPUT_NAME}_{i:02d}" for i in range(count))


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose data start at a multiple of 16 bytes, which the generated code forgets."""

    def Pack(self, builder: Any) -> int:
        data = None
        if self.data is not None:
            payload = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(payload), _BUFFER_ALIGNMENT_BYTES)
            builder.head = builder.Head() - len(payload)
            builder.Bytes[builder.Head() : builder.Head() + len(payload)] = payload
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))


class _SharedTable:
    """A table that many tensors refer to: written once, so that heads share it too."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self._written: dict[int, int] = {}

    def Pack(self, builder: Any) -> int:
        if id(builder) not in self._written:
            self._written = {id(builder): int(self._table.Pack(builder))}
        return self._written[id(builder)]


def load(model: bytes) -> Any:
    """The object tree (`ModelT`) of a TFLite file, with all weights inside its buffers."""
    if model[4:8] != IDENTIFIER:
        raise BuildError("not a TFLite model (its identifier is missing)")
    tree = schema.ModelT.InitFromPackedBuf(model, 0)
    if len(tree.subgraphs) != 1:
        raise BuildError(f"the TFLite model has {len(tree.subgraphs)} subgraphs instead of one")
    for buffer in tree.buffers:
        # Offsets 0 and 1 mean "inside"; ai-edge-quantizer puts weights after the flatbuffer.
        if buffer.offset > 1:
            buffer.data = np.frombuffer(model, np.uint8, int(buffer.size), int(buffer.offset))
            buffer.offset = buffer.size = 0
    return tree


def save(tree: Any) -> bytes:
    """The bytes of an object tree; the same tree gives the same bytes."""
    packed = copy.copy(tree)
    packed.buffers = [_aligned(buffer) for buffer in tree.buffers]
    payload_bytes = sum(len(buffer.data) for buffer in packed.buffers if buffer.data is not None)
    builder = flatbuffers.Builder(payload_bytes + (1 << 20))
    builder.Finish(packed.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def find_cuts(model: bytes) -> list[TfliteCut]:
    """The single-tensor cuts of a model, from the input on."""
    graph = load(model).subgraphs[0]
    steps = tuple(
        Step(tuple(map(str, operator.inputs)), tuple(map(str, operator.outputs)))
        for operator in graph.operators
    )
    picture = picture_of(graph)
    flow = Flow(
        steps=steps,
        picture=str(picture),
        results=tuple(map(str, graph.outputs)),
        sides=frozenset(map(str, graph.inputs)) - {str(picture)},
    )
    return [
        _describe(graph, operator=operator, index=int(tensor))
        for operator, tensor in flow.separators()
    ]


def find_activations(model: bytes) -> list[TfliteCut]:
    """Every tensor that comes of the picture alone, one item of float32 or int8, from the input on.

    Whoever wants one as a cut must know that it is one.
    """
    graph = load(model).subgraphs[0]
    picture = picture_of(graph)
    sides, depends = {int(t) for t in graph.inputs} - {picture}, {picture}
    found: list[TfliteCut] = []
    for index, operator in enumerate(graph.operators):
        made, read = list(map(int, operator.outputs)), set(map(int, operator.inputs))
        if read & sides:
            sides.update(made)
        elif read & depends:
            depends.update(made)
            for tensor in made:
                shape, kind = graph.tensors[tensor].shape, graph.tensors[tensor].type
                if kind in _DTYPES and shape is not None and len(shape) > 1 and shape[0] == 1:
                    found.append(_describe(graph, operator=index, index=tensor))
    return found


def quantized_twins(model: bytes) -> dict[str, TfliteCut]:
    """For each activation of a quantized model by name, what a head should send of it.

    That is the tensor itself if it is int8, what a QUANTIZE makes of it, or the float tensor.
    """
    tree = load(model)
    graph = tree.subgraphs[0]
    found = {cut.name: cut for cut in find_activations(model)}
    by_tensor = {cut.tensor: cut for cut in found.values()}
    twins = dict(found)
    codes = [_builtin(code) for code in tree.operatorCodes]
    for operator in graph.operators:
        if codes[operator.opcodeIndex] != schema.BuiltinOperator.QUANTIZE:
            continue
        given, made = (by_tensor.get(int(t[0])) for t in (operator.inputs, operator.outputs))
        if given is not None and made is not None and (given.dtype, made.dtype) == _TO_INT8:
            twins[given.name] = made
    return twins


def picture_of(graph: Any) -> int:
    """The input of four axes, if there is just one; or else the first."""
    inputs = [int(tensor) for tensor in graph.inputs]
    pictures = [t for t in inputs if len(graph.tensors[t].shape) == _PICTURE_AXES]
    return pictures[0] if len(pictures) == 1 else inputs[0]


def input_quantization(tree: Any, graph: Any) -> Any | None:
    """The QUANTIZE to int8 that alone reads the picture, if there is one."""
    picture = picture_of(graph)
    readers = [each for each in graph.operators if picture in map(int, each.inputs)]
    if len(readers) != 1:
        return None
    made = graph.tensors[int(readers[0].outputs[0])]
    code = _builtin(tree.operatorCodes[readers[0].opcodeIndex])
    if code != schema.BuiltinOperator.QUANTIZE or _DTYPES.get(made.type) != "int8":
        return None
    return readers[0]


@dataclass(frozen=True)
class HeadSource:
    """A model and its cuts by name; `codes`: heads take what it quantizes its input to."""

    model: bytes
    cuts: Mapping[str, TfliteCut]
    codes: bool = False


def pack_heads(model: bytes, cuts: Mapping[str, TfliteCut], *, codes: bool = False) -> bytes:
    """One TFLite file with a signature per head, all of one model."""
    return pack_sources([HeadSource(model, cuts, codes)])


def pack_sources(sources: Sequence[HeadSource]) -> bytes:
    """One TFLite file with a signature per head, by the names of the cuts.

    Each signature takes `tensor`, its model's own input (with `codes` what the model quantizes it
    to, if it begins with that), and returns `cut`, whose dtype is the cut's: an int8 head's
    output is the int8 tensor itself. A cut of several tensors returns them as `cut_00`, `cut_01`
    and so on. The order of heads is the operators'.
    """
    if not any(source.cuts for source in sources):
        raise BuildError("no cuts to make heads of")
    packed = schema.ModelT()
    packed.description = b"hybridge heads"
    packed.subgraphs, packed.signatureDefs = [], []
    packed.buffers, packed.operatorCodes = [], []
    for source in sources:
        model = load(source.model)
        graph = model.subgraphs[0]
        ordered = sorted(source.cuts.items(), key=lambda item: (item[1].operator, item[0]))
        skipped = input_quantization(model, graph) if source.codes else None
        heads = [_head(graph, name=name, cut=cut, skipped=skipped) for name, cut in ordered]
        packed.signatureDefs += [
            _signature(name, subgraph=index, head=head)
            for index, ((name, _), head) in enumerate(
                zip(ordered, heads, strict=True), start=len(packed.subgraphs)
            )
        ]
        packed.subgraphs += heads
        packed.version = model.version
        _keep_used(packed, heads, model)
    return save(packed)


def _aligned(buffer: Any) -> _AlignedBuffer:
    aligned = _AlignedBuffer()
    aligned.data = buffer.data
    return aligned


def _builtin(code: Any) -> int:
    """Codes above 127 do not fit into the older field."""
    return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))


def _describe(graph: Any, *, operator: int, index: int) -> TfliteCut:
    tensor = graph.tensors[index]
    quantization = tensor.quantization
    scale = zero_point = None
    if quantization is not None and quantization.scale is not None and len(quantization.scale):
        if len(quantization.scale) != 1:
            raise BuildError(f"activation {tensor.name!r} is quantized per channel")
        scale, zero_point = float(quantization.scale[0]), int(quantization.zeroPoint[0])
    return TfliteCut(
        operator=operator,
        tensor=index,
        name=tensor.name.decode(),
        shape=tuple(int(size) for size in tensor.shape[1:]),
        dtype=_DTYPES.get(tensor.type, f"TensorType {tensor.type}"),
        scale=scale,
        zero_point=zero_point,
    )


def _head(graph: Any, *, name: str, cut: TfliteCut, skipped: Any | None = None) -> Any:
    """The subgraph that computes one cut: only the operators and tensors it needs, renumbered.

    Without the operator `skipped`, whose output is then the input.
    """
    ends = [part.tensor for part in cut.tensors]
    for part in cut.tensors:
        names = [tensor.name for tensor in graph.tensors[part.tensor : part.tensor + 1]]
        if names != [part.name.encode()]:
            raise BuildError(f"cut {part.name!r} belongs to another model")
    picture = picture_of(graph)
    taken = picture if skipped is None else int(skipped.outputs[0])
    needed = set(ends)
    operators: list[Any] = []
    for operator in reversed(graph.operators[: cut.operator + 1]):
        if operator is not skipped and any(int(tensor) in needed for tensor in operator.outputs):
            operators.append(copy.copy(operator))
            needed.update(_tensors_of(operator))
    operators.reverse()
    if sides := needed & {int(tensor) for tensor in graph.inputs} - {picture}:
        name = graph.tensors[min(sides)].name.decode()
        raise BuildError(f"cut {cut.name!r} needs {name!r}, which only the cloud has")
    used = sorted(needed | {taken})
    renumbered = {old: new for new, old in enumerate(used)} | {_NO_TENSOR: _NO_TENSOR}
    for operator in operators:
        operator.inputs = [renumbered[int(tensor)] for tensor in operator.inputs]
        operator.outputs = [renumbered[int(tensor)] for tensor in operator.outputs]
        if operator.intermediates is not None:
            operator.intermediates = [renumbered[int(t)] for t in operator.intermediates]
    head = schema.SubGraphT()
    head.name = name.encode()
    head.tensors = [copy.copy(graph.tensors[tensor]) for tensor in used]
    head.operators = operators
    head.inputs = [renumbered[taken]]
    head.outputs = [renumbered[end] for end in ends]
    for index, tensor in enumerate(head.tensors):
        if index not in (*head.inputs, *head.outputs):
            tensor.name = None  # the converters write up to 600 characters, once per head
    return head


def _tensors_of(operator: Any) -> set[int]:
    lists = (operator.inputs, operator.outputs, operator.intermediates)
    return {int(t) for tensors in lists if tensors is not None for t in tensors} - {_NO_TENSOR}


def _signature(name: str, *, subgraph: int, head: Any) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey = name.encode()
    signature.subgraphIndex = subgraph
    signature.inputs = [_tensor_map(INPUT_NAME, head.inputs[0])]
    names = output_names(len(head.outputs))
    signature.outputs = [_tensor_map(*each) for each in zip(names, head.outputs, strict=True)]
    return signature


def _tensor_map(name: str, tensor: int) -> Any:
    entry = schema.TensorMapT()
    entry.name = name.encode()
    entry.tensorIndex = tensor
    return entry


def _keep_used(packed: Any, heads: Sequence[Any], source: Any) -> None:
    """Take from the source the buffers and operator codes its heads use, renumbered."""
    tensors = [tensor for head in heads for tensor in head.tensors]
    buffers = sorted({0} | {int(tensor.buffer) for tensor in tensors})
    new_buffers = {old: new for new, old in enumerate(buffers, start=len(packed.buffers))}
    packed.buffers += [source.buffers[buffer] for buffer in buffers]
    for tensor in tensors:
        tensor.buffer = new_buffers[int(tensor.buffer)]
    shared: dict[int, _SharedTable] = {}
    for tensor in tensors:
        if tensor.quantization is not None:
            table = tensor.quantization
            tensor.quantization = shared.setdefault(id(table), _SharedTable(table))
    operators = [operator for head in heads for operator in head.operators]
    codes = sorted({int(operator.opcodeIndex) for operator in operators})
    new_codes = {old: new for new, old in enumerate(codes, start=len(packed.operatorCodes))}
    packed.operatorCodes += [source.operatorCodes[code] for code in codes]
    for operator in operators:
        operator.opcodeIndex = new_codes[int(operator.opcodeIndex)]

"""TFLite graphs: where a model can be cut, and its heads as signatures of one file.

A head is the model's operator list up to a cut. All heads of a file share one buffer table, so ten
heads of a model are hardly larger than the model itself.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ...shared.errors import BuildError

INPUT_NAME = "tensor"
OUTPUT_NAME = "cut"

_IDENTIFIER = b"TFL3"
_BUFFER_ALIGNMENT_BYTES = 16  # force_align of Buffer.data in the TFLite schema
_NO_TENSOR = -1
_DTYPES = {schema.TensorType.FLOAT32: "float32", schema.TensorType.INT8: "int8"}


@dataclass(frozen=True, slots=True)
class TfliteCut:
    """A tensor that alone separates a model's input from its output.

    `operator` is the index of the last operator of the head, `shape` is per item and channels
    last; an int8 tensor has real = scale * (value - zero_point).
    """

    operator: int
    tensor: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


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
    if model[4:8] != _IDENTIFIER:
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
    builder.Finish(packed.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def find_cuts(model: bytes) -> list[TfliteCut]:
    """The single-tensor cuts of a model with one input and one output, from the input on."""
    graph = load(model).subgraphs[0]
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise BuildError("only models with one input and one output can be cut")
    depends = {int(graph.inputs[0])}
    last_use: dict[int, int] = {}
    for index, operator in enumerate(graph.operators):
        last_use.update({int(tensor): index for tensor in operator.inputs})
        if any(tensor in depends for tensor in operator.inputs):
            depends.update(int(tensor) for tensor in operator.outputs)
    last_use[int(graph.outputs[0])] = len(graph.operators)

    cuts: list[TfliteCut] = []
    live = {int(graph.inputs[0])}
    for index, operator in enumerate(graph.operators):
        if not any(tensor in depends for tensor in operator.inputs):
            continue
        live.update(int(tensor) for tensor in operator.outputs)
        live = {tensor for tensor in live if last_use.get(tensor, -1) > index}
        if len(live) == 1 and live.isdisjoint(map(int, graph.outputs)):
            (tensor,) = live
            if not cuts or cuts[-1].tensor != tensor:
                cuts.append(_describe(graph, operator=index, index=tensor))
    return cuts


def pack_heads(model: bytes, cuts: Mapping[str, TfliteCut]) -> bytes:
    """One TFLite file with a signature per head, by the names in `cuts`.

    Each signature takes `tensor`, the model's own input, and returns `cut`, whose dtype is the
    cut's: an int8 head's output is the int8 tensor itself. The order is the operators'.
    """
    if not cuts:
        raise BuildError("no cuts to make heads of")
    source = load(model)
    graph = source.subgraphs[0]
    ordered = sorted(cuts.items(), key=lambda item: (item[1].operator, item[0]))
    packed = schema.ModelT()
    packed.version = source.version
    packed.description = b"hybridge heads"
    packed.subgraphs = [_head(graph, name=name, cut=cut) for name, cut in ordered]
    packed.signatureDefs = [
        _signature(name, subgraph=index, head=head)
        for index, ((name, _), head) in enumerate(zip(ordered, packed.subgraphs, strict=True))
    ]
    _keep_used(packed, source)
    return save(packed)


def _aligned(buffer: Any) -> _AlignedBuffer:
    aligned = _AlignedBuffer()
    aligned.data = buffer.data
    return aligned


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


def _head(graph: Any, *, name: str, cut: TfliteCut) -> Any:
    """The subgraph that computes one cut: only the operators and tensors it needs, renumbered."""
    names = [tensor.name for tensor in graph.tensors[cut.tensor : cut.tensor + 1]]
    if names != [cut.name.encode()]:
        raise BuildError(f"cut {cut.name!r} belongs to another model")
    needed = {cut.tensor}
    operators: list[Any] = []
    for operator in reversed(graph.operators[: cut.operator + 1]):
        if any(int(tensor) in needed for tensor in operator.outputs):
            operators.append(copy.copy(operator))
            needed.update(_tensors_of(operator))
    operators.reverse()
    used = sorted(needed | {int(tensor) for tensor in graph.inputs})
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
    head.inputs = [renumbered[int(tensor)] for tensor in graph.inputs]
    head.outputs = [renumbered[cut.tensor]]
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
    signature.outputs = [_tensor_map(OUTPUT_NAME, head.outputs[0])]
    return signature


def _tensor_map(name: str, tensor: int) -> Any:
    entry = schema.TensorMapT()
    entry.name = name.encode()
    entry.tensorIndex = tensor
    return entry


def _keep_used(packed: Any, source: Any) -> None:
    """Take from the source the buffers and operator codes the heads use, renumbered."""
    tensors = [tensor for head in packed.subgraphs for tensor in head.tensors]
    buffers = sorted({0} | {int(tensor.buffer) for tensor in tensors})
    packed.buffers = [source.buffers[buffer] for buffer in buffers]
    new_buffers = {old: new for new, old in enumerate(buffers)}
    for tensor in tensors:
        tensor.buffer = new_buffers[int(tensor.buffer)]
    shared: dict[int, _SharedTable] = {}
    for tensor in tensors:
        if tensor.quantization is not None:
            table = tensor.quantization
            tensor.quantization = shared.setdefault(id(table), _SharedTable(table))
    operators = [operator for head in packed.subgraphs for operator in head.operators]
    codes = sorted({int(operator.opcodeIndex) for operator in operators})
    packed.operatorCodes = [source.operatorCodes[code] for code in codes]
    new_codes = {old: new for new, old in enumerate(codes)}
    for operator in operators:
        operator.opcodeIndex = new_codes[int(operator.opcodeIndex)]

"""One weights file for all graphs of a model: ONNX external data, aligned and stored once."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto, TensorProto
from onnx.numpy_helper import to_array

from ...shared.errors import BuildError
from ..weights import ALIGNMENT_BYTES, LOCATION, TABLE_VERSION
from .onnx_source import copy_of

_INLINE_BYTES = 1024  # smaller tensors stay in the graph, where shape inference sees them


@dataclass(frozen=True)
class Externalized:
    """Graphs without their weights, the weights, and the table that says where each one lies."""

    graphs: Mapping[str, bytes]
    weights: bytes
    table: bytes


def externalize(graphs: Mapping[str, ModelProto]) -> Externalized:
    """Move the weights of several graphs into one blob; equal contents are stored once.

    A name means the same weights in every graph, as it does among the tails of one model;
    BuildError otherwise. The graphs that come in are left as they are, and each is looked at once,
    so that a mapping may make them one after the other.
    """
    weights = _SharedWeights()
    small: dict[str, bytes] = {}
    for name in sorted(graphs):
        slim = without_weights(model := graphs[name])
        for tensor in model.graph.initializer:
            slim.graph.initializer.append(weights.moved(tensor))
        del model
        small[name] = slim.SerializeToString(deterministic=True)
    weights.check_names()
    return Externalized(graphs=small, weights=weights.blob.getvalue(), table=weights.table())


def renamed(model: ModelProto, prefix: str) -> ModelProto:
    """The model with names of its own for its weights."""
    result = copy_of(model)
    names = {tensor.name: prefix + tensor.name for tensor in result.graph.initializer}
    for tensor in result.graph.initializer:
        tensor.name = names[tensor.name]
    for node in result.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = names.get(name, name)
    return result


class _SharedWeights:
    """The blob that is filled, and where each tensor lies in it."""

    def __init__(self) -> None:
        self.blob = io.BytesIO()
        self._offsets: dict[bytes, int] = {}  # by hash: the contents themselves are in the blob
        self._entries: dict[str, dict[str, object]] = {}
        self._inline: set[str] = set()

    def moved(self, tensor: TensorProto) -> TensorProto:
        """A reference to a tensor that is now in the blob, or the tensor itself if it is small."""
        array = to_array(tensor)
        if array.nbytes < _INLINE_BYTES or tensor.data_type == TensorProto.STRING:
            self._inline.add(tensor.name)
            return tensor
        raw = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        digest = hashlib.sha256(raw).digest()
        if digest not in self._offsets:
            self.blob.write(bytes(-self.blob.tell() % ALIGNMENT_BYTES))
            self._offsets[digest] = self.blob.tell()
            self.blob.write(raw)
        offset = self._offsets[digest]
        entry: dict[str, object] = {
            "offset": offset,
            "shape": list(array.shape),
            "dtype": str(array.dtype),
        }
        if self._entries.setdefault(tensor.name, entry) != entry:
            raise BuildError(f"{tensor.name!r} is not the same weights in every graph")
        return _reference(tensor, offset=offset, size=len(raw))

    def check_names(self) -> None:
        """BuildError if a name is weights in one graph and a small tensor in another.

        A session takes the shared tensor for every initializer of that name.
        """
        if both := self._inline & self._entries.keys():
            raise BuildError(f"{min(both)!r} is not the same weights in every graph")

    def table(self) -> bytes:
        """What cloud/weights.py reads."""
        head = {"version": TABLE_VERSION, "bytes": self.blob.tell(), "tensors": self._entries}
        return json.dumps(head, sort_keys=True, separators=(",", ":")).encode()


def without_weights(model: ModelProto) -> ModelProto:
    """A copy of all but the initializers, which never are in memory twice."""
    slim = ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy_field(slim, field, value)
    slim.graph.SetInParent()
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _copy_field(slim.graph, field, value)
    return slim


def _copy_field(target: Any, field: Any, value: Any) -> None:
    if field.is_repeated:
        getattr(target, field.name).extend(value)
    elif field.message_type is not None:
        getattr(target, field.name).CopyFrom(value)
    else:
        setattr(target, field.name, value)


def _reference(tensor: TensorProto, *, offset: int, size: int) -> TensorProto:
    """The tensor's name, type and shape, and where its data lies."""
    made = TensorProto(
        name=tensor.name,
        data_type=tensor.data_type,
        dims=tensor.dims,
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (("location", LOCATION), ("offset", str(offset)), ("length", str(size))):
        made.external_data.add(key=key, value=value)
    return made

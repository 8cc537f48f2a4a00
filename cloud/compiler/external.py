"""One weights file for all graphs of a model: ONNX external data, aligned and stored once."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from onnx import ModelProto, TensorProto
from onnx.numpy_helper import to_array

from ...shared.errors import BuildError
from ..weights import ALIGNMENT_BYTES, LOCATION, TABLE_VERSION

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
    BuildError otherwise. The graphs that come in are left as they are.
    """
    blob = bytearray()
    offsets: dict[bytes, int] = {}
    table: dict[str, dict[str, object]] = {}
    inline: set[str] = set()
    small: dict[str, bytes] = {}
    for name, model in sorted(graphs.items()):
        slim = ModelProto()
        slim.CopyFrom(model)
        for tensor in slim.graph.initializer:
            array = to_array(tensor)
            raw = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
            if len(raw) < _INLINE_BYTES or tensor.data_type == TensorProto.STRING:
                inline.add(tensor.name)
                continue
            if raw not in offsets:
                blob.extend(bytes(-len(blob) % ALIGNMENT_BYTES))
                offsets[raw] = len(blob)
                blob.extend(raw)
            entry: dict[str, object] = {
                "offset": offsets[raw],
                "shape": list(array.shape),
                "dtype": str(array.dtype),
            }
            if table.setdefault(tensor.name, entry) != entry:
                raise BuildError(f"{tensor.name!r} is not the same weights in every graph")
            _point(tensor, offset=offsets[raw], size=len(raw))
        small[name] = slim.SerializeToString(deterministic=True)
    if both := inline & table.keys():
        # A session takes the shared tensor for every initializer of that name.
        raise BuildError(f"{min(both)!r} is not the same weights in every graph")
    head = {"version": TABLE_VERSION, "bytes": len(blob), "tensors": table}
    text = json.dumps(head, sort_keys=True, separators=(",", ":"))
    return Externalized(graphs=small, weights=bytes(blob), table=text.encode())


def _point(tensor: TensorProto, *, offset: int, size: int) -> None:
    """Turn a tensor with data into a reference to the blob."""
    bare = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    bare.data_location = TensorProto.EXTERNAL
    for key, value in (("location", LOCATION), ("offset", offset), ("length", size)):
        bare.external_data.add(key=key, value=str(value))
    tensor.CopyFrom(bare)

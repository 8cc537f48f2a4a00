"""Tensors as the Open Inference Protocol carries them: a datatype, a shape and raw bytes.

Layout of `raw_input_contents`: row-major little-endian elements; BYTES elements are each preceded
by their length as a little-endian uint32 (KServe V2 specification, "Raw Tensor Contents").
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from .errors import TensorError

Array = npt.NDArray[np.generic]

DTYPES: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_DATATYPES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """A named tensor of a model beside its picture or its answer; `shape` is per item."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable() or "," in self.name:
            raise ValueError(f"tensor name {self.name!r} is empty, or holds what cannot be listed")
        if self.datatype not in DTYPES:
            raise ValueError(f"datatype {self.datatype!r} is not one of {', '.join(DTYPES)}")
        if any(size < 1 for size in self.shape):
            raise ValueError(f"shape {self.shape} must have sizes of at least 1")

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} {list(self.shape)}"

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return DTYPES[self.datatype]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def item_bytes(self) -> int:
        """What one item takes on the wire."""
        return self.elements * self.dtype.itemsize


def datatype_of(array: Array) -> str:
    """The protocol's name for an array's dtype."""
    dtype = array.dtype
    try:
        return _DATATYPES.get(dtype) or _DATATYPES[dtype.newbyteorder("<")]
    except KeyError:
        raise TensorError(f"dtype {array.dtype} has no Open Inference Protocol name") from None


def to_raw(array: Array) -> bytes:
    """Row-major little-endian bytes of an array."""
    return np.ascontiguousarray(array, dtype=DTYPES[datatype_of(array)]).tobytes()


def from_raw(raw: bytes | memoryview, *, datatype: str, shape: Sequence[int]) -> Array:
    """Raw bytes as an array, a read-only view where they are aligned.

    TensorError if bytes and shape disagree.
    """
    return aligned(view_raw(raw, datatype=datatype, shape=shape))


def aligned(array: Array) -> Array:
    """The array itself, or a copy where it lies as no processor has to read it."""
    return array if array.flags.aligned else array.copy()


def view_raw(raw: bytes | memoryview, *, datatype: str, shape: Sequence[int]) -> Array:
    """Raw bytes as an array that is a read-only view, `aligned` or not.

    TensorError if bytes and shape disagree.
    """
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise TensorError(f"datatype {datatype!r} is not one of {', '.join(DTYPES)}")
    if min(shape, default=0) < 0:
        raise TensorError(f"shape {list(shape)} has a negative size")
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise TensorError(f"{datatype} {list(shape)} takes {expected} bytes, {len(raw)} were sent")
    try:
        return cast(Array, np.frombuffer(raw, dtype).reshape(tuple(shape)))
    except ValueError as error:  # more dimensions, or a wider empty one, than numpy has
        raise TensorError(f"{datatype} with {len(shape)} dimensions: {error}") from None


def bytes_to_raw(elements: Sequence[bytes]) -> bytes:
    """BYTES elements, each behind its length."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def bytes_from_raw(raw: bytes | memoryview, *, count: int) -> list[bytes]:
    """The BYTES elements of a raw tensor; TensorError unless there are exactly `count`."""
    elements: list[bytes] = []
    at = 0
    while at < len(raw):
        if len(elements) == count or at + 4 > len(raw):
            raise TensorError(f"BYTES tensor does not hold exactly {count} elements")
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + size > len(raw):
            raise TensorError("BYTES tensor is cut off in the middle of an element")
        elements.append(bytes(raw[at : at + size]))
        at += size
    if len(elements) != count:
        raise TensorError(f"BYTES tensor holds {len(elements)} elements, its shape says {count}")
    return elements

"""Inference messages as they are on the wire: the large contents in them are never copied.

A protobuf message is a sequence of fields, each behind its number, in any order (Protocol Buffers
documentation, "Encoding"). Tensors are its largest by far and need no decoding, so they are left
where gRPC put them, and only the rest goes through protobuf: of 600 KB that came as float32,
protobuf's own way takes two more copies.
"""

from collections.abc import Iterator

import numpy as np
from google.protobuf.message import DecodeError

from ..protos import open_inference_pb2 as pb
from .errors import RequestError
from .oip import InferRequest, InferResponse, add_placed, read_request, set_parameters
from .tensor import DTYPES, datatype_of

_CONTENTS = 7 << 3 | 2
"""The tag of ModelInferRequest.raw_input_contents."""
_OUTPUT_CONTENTS = bytes([6 << 3 | 2])
"""The tag of ModelInferResponse.raw_output_contents."""
_MOST_FIELDS = 64
"""A message of more is left to protobuf, which is faster by field, if not by byte."""
_FIXED_BYTES = {1: 8, 5: 4}


def read_infer(message: bytes) -> InferRequest:
    """A ModelInferRequest, its raw contents views of the message; RequestError if it is none."""
    try:
        split = _split(message)
        if split is None:
            return read_request(pb.ModelInferRequest.FromString(message))
        rest, contents = split
        return read_request(pb.ModelInferRequest.FromString(rest), contents=contents)
    except (DecodeError, IndexError) as error:
        raise RequestError(f"{len(message)} bytes that are no such message") from error


def write_infer(response: InferResponse) -> bytes:
    """A ModelInferResponse."""
    message = pb.ModelInferResponse(
        model_name=response.model_name, model_version=response.model_version, id=response.id
    )
    set_parameters(message.parameters, response.parameters)
    parts: list[bytes | memoryview] = []
    for name, array in response.outputs.items():
        if region := response.placed.get(name):
            add_placed(message, name, array, region)
            parts += (_OUTPUT_CONTENTS, _varint(0))
            continue
        datatype = datatype_of(array)
        message.outputs.add(name=name, datatype=datatype, shape=array.shape)
        raw = np.ascontiguousarray(array, dtype=DTYPES[datatype])
        parts += (_OUTPUT_CONTENTS, _varint(raw.nbytes), raw.data)
    return b"".join((message.SerializeToString(), *parts))


def _split(message: bytes) -> tuple[bytes, list[memoryview]] | None:
    """All but the raw contents, and these; None if there are very many fields.

    IndexError or DecodeError where the message is cut off or is none.
    """
    view = memoryview(message)
    rest: list[memoryview] = []
    contents: list[memoryview] = []
    at = kept_to = 0
    for _ in range(_MOST_FIELDS):
        if at == len(message):
            rest.append(view[kept_to:])
            return b"".join(rest), contents
        tag, body = _read_varint(message, at)
        end = _end(message, tag & 7, body)
        if tag == _CONTENTS:
            size, start = _read_varint(message, body)
            rest.append(view[kept_to:at])
            contents.append(view[start : start + size])
            kept_to = end
        at = end
    return None


def _end(message: bytes, wire_type: int, at: int) -> int:
    """Where a field ends whose tag has been read."""
    if wire_type == 2:
        size, at = _read_varint(message, at)
        end = at + size
    elif wire_type == 0:
        _, end = _read_varint(message, at)
    elif wire_type in _FIXED_BYTES:
        end = at + _FIXED_BYTES[wire_type]
    else:
        raise DecodeError(f"wire type {wire_type}")
    if end > len(message):
        raise DecodeError("cut off")
    return end


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = message[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for shift in range(7, 70, 7):
        at += 1
        byte = message[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
    raise DecodeError("a number of more than ten bytes")


def _varint(value: int) -> bytes:
    return bytes(_groups(value))


def _groups(value: int) -> Iterator[int]:
    while value >= 0x80:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value

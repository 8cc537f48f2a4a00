"""Inference messages as they are on the wire, read and written by hand.

A protobuf message is a sequence of fields, each behind its number, in any order (Protocol Buffers
documentation, "Encoding"). Tensors are its largest by far and need no decoding, so they are left
where gRPC put them: of 600 KB that came as float32, protobuf's own way takes two more copies. The
rest goes through protobuf, once for all requests that say the same: most of a client do, apart
from their ids. Of answers only the numbers are new, so all else is put together from pieces.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from ..protos import open_inference_pb2 as pb
from .errors import RequestError
from .oip import InferRequest, InferResponse, Value, Words, add_placed, read_request, set_parameters
from .tensor import DTYPES, datatype_of

_LENGTH = 2
"""The wire type of what is preceded by its length."""
_ID, _CONTENTS = 3 << 3 | _LENGTH, 7 << 3 | _LENGTH
"""The tags of a ModelInferRequest's id and raw_input_contents."""
_MOST_FIELDS = 64
"""A message of more is left to protobuf, which is faster by field, if not by byte."""
_FIXED_BYTES = {1: 8, 5: 4}
_TENSORS = frozenset((5 << 3 | _LENGTH, 6 << 3 | _LENGTH))
"""The tags of its inputs and of the outputs that it names."""
_FIELDS_AT_MOST, _WORDS_AT_MOST_BYTES = 4096, 8 << 20
"""What a message may say beside its raw contents; of tiny fields each byte takes 2 us to read."""
_KEPT, _KEPT_BYTES = 256, 2048
"""How many pieces of a message are kept, and how long they may be."""

_NAME, _VERSION, _RESPONSE_ID = (bytes([number << 3 | _LENGTH]) for number in (1, 2, 3))
_PARAMETER, _OUTPUT, _OUTPUT_CONTENTS = (bytes([number << 3 | _LENGTH]) for number in (4, 5, 6))
"""The tags of a ModelInferResponse."""
_KEY, _VALUE = b"\x0a", b"\x12"
"""Of an entry of `parameters`."""
_DOUBLE = bytes([4 << 3 | 1])
"""The tag of InferParameter.double_param."""
_pack_double = struct.Struct("<d").pack


def read_infer(message: bytes) -> InferRequest:
    """A ModelInferRequest, its raw contents views of the message; RequestError if it is none."""
    if (same := _heads.get(len(message))) is not None and message.startswith(same.head):
        return same.words.request(id="", contents=(memoryview(message)[len(same.head) :],))
    try:
        split = _split(message)
        if split is None:
            return read_request(parse_infer(message))
        rest, id, contents, head_bytes = split
        if len(rest) > _KEPT_BYTES:
            words = _words(rest)
        else:
            words = _words_kept(rest)
            if len(contents) == 1 and not id and 0 < head_bytes <= _KEPT_BYTES:
                _keep_head(message, head_bytes, words)
        return words.request(id=id.decode() if id else "", contents=contents)
    except (DecodeError, IndexError, UnicodeDecodeError) as error:
        raise RequestError(f"{len(message)} bytes that are no such message") from error


def parse_infer(message: bytes) -> pb.ModelInferRequest:
    """A ModelInferRequest as protobuf has it.

    RequestError if it says so much that reading it would hold up everybody, DecodeError or
    IndexError if it is none.
    """
    _check_words(message)
    return pb.ModelInferRequest.FromString(message)


def write_infer(response: InferResponse) -> bytes:
    """A ModelInferResponse."""
    parts = [_names(response.model_name, response.model_version)]
    if response.id:
        id = response.id.encode()
        parts += (_RESPONSE_ID, _varint(len(id)), id)
    for name, value in response.parameters.items():
        if type(value) is float:
            parts += (_double(name), _pack_double(value))
        else:
            parts.append(_parameter(name, value))
    contents: list[bytes | memoryview] = []
    for name, array in response.outputs.items():
        if region := response.placed.get(name):
            message = pb.ModelInferResponse()
            add_placed(message, name, array, region)
            parts.append(message.SerializeToString())
            contents.append(_contents_of(0))
            continue
        datatype = datatype_of(array)
        parts.append(_output(name, datatype, array.shape))
        raw = np.ascontiguousarray(array, dtype=DTYPES[datatype])
        contents += (_contents_of(raw.nbytes), raw.data)
    return b"".join((*parts, *contents))


class _Head(NamedTuple):
    """What a message begins with that ends with its only raw contents, and what that says."""

    head: bytes
    words: Words


_heads: dict[int, _Head] = {}
"""By the size of the whole message: with the same head another says the same."""


def _keep_head(message: bytes, head_bytes: int, words: Words) -> None:
    if len(_heads) >= _KEPT:
        _heads.clear()
    _heads[len(message)] = _Head(message[:head_bytes], words)


def _words(rest: bytes) -> Words:
    return Words.of(parse_infer(rest))


_words_kept = lru_cache(_KEPT)(_words)


@lru_cache(_KEPT)
def _names(name: str, version: str) -> bytes:
    fields = ((_NAME, name), (_VERSION, version))
    return b"".join(_field(tag, value.encode()) for tag, value in fields if value)


@lru_cache(_KEPT)
def _double(name: str) -> bytes:
    """A parameter up to its value, which is 8 bytes."""
    value = _VALUE + _varint(len(_DOUBLE) + 8) + _DOUBLE
    key = _field(_KEY, name.encode())
    return _PARAMETER + _varint(len(key) + len(value) + 8) + key + value


@lru_cache(_KEPT, typed=True)
def _parameter(name: str, value: Value) -> bytes:
    message = pb.ModelInferResponse()
    set_parameters(message.parameters, {name: value})
    return message.SerializeToString()


@lru_cache(_KEPT)
def _contents_of(size_bytes: int) -> bytes:
    return _OUTPUT_CONTENTS + _varint(size_bytes)


@lru_cache(_KEPT)
def _output(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    message = pb.ModelInferResponse()
    message.outputs.add(name=name, datatype=datatype, shape=shape)
    return message.SerializeToString()


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _split(message: bytes) -> tuple[bytes, bytes, list[memoryview], int] | None:
    """All but id and raw contents, and these; None if there are very many fields.

    Where the message ends with raw contents, also how much stands before these; else 0.

    IndexError or DecodeError where the message is cut off or is none.
    """
    view, size = memoryview(message), len(message)
    rest: list[memoryview] = []
    contents: list[memoryview] = []
    id = b""
    at = kept_to = head_bytes = 0
    for _ in range(_MOST_FIELDS):
        if at == size:
            rest.append(view[kept_to:])
            return b"".join(rest), id, contents, head_bytes
        tag, start, end = _read_field(message, at, size)
        if tag in (_CONTENTS, _ID):
            rest.append(view[kept_to:at])
            kept_to = end
            if tag == _CONTENTS:
                contents.append(view[start:end])
                head_bytes = start if end == size else 0
            else:
                id = message[start:end]
        at = end
    return None


def _check_words(message: bytes) -> None:
    """Counts fields, those of tensors too, and what is no raw contents."""
    fields = words_bytes = 0
    parts = [(0, len(message), True)]
    while parts:
        at, size, outer = parts.pop()
        while at < size:
            fields += 1
            if fields > _FIELDS_AT_MOST:
                raise RequestError(f"a message of more than {_FIELDS_AT_MOST} fields")
            tag, start, end = _read_field(message, at, size)
            if outer and tag != _CONTENTS:
                words_bytes += end - at
            if outer and tag in _TENSORS:
                parts.append((start, end, False))
            at = end
    if words_bytes > _WORDS_AT_MOST_BYTES:
        raise RequestError(
            f"{words_bytes} bytes beside raw_input_contents, at most {_WORDS_AT_MOST_BYTES} are "
            "read; send tensors there"
        )


def _read_field(message: bytes, at: int, size: int) -> tuple[int, int, int]:
    """A tag, and where its content begins and ends; DecodeError if that is beyond `size`."""
    tag, start = _read_varint(message, at)
    wire_type = tag & 7
    if wire_type == _LENGTH:
        length, start = _read_varint(message, start)
        end = start + length
    elif wire_type == 0:
        end = _read_varint(message, start)[1]
    elif wire_type in _FIXED_BYTES:
        end = start + _FIXED_BYTES[wire_type]
    else:
        raise DecodeError(f"wire type {wire_type}")
    if end > size:
        raise DecodeError("cut off")
    return tag, start, end


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
    return bytes((value,)) if value < 0x80 else bytes(_groups(value))


def _groups(value: int) -> Iterator[int]:
    while value >= 0x80:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value

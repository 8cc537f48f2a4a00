"""Open Inference Protocol messages as HTTP carries them: JSON, and tensors behind it in binary.

Without the binary tensor extension a body is one JSON object. With it the first N bytes are, as
`Inference-Header-Content-Length: N` says, and behind them lie the raw bytes of those tensors whose
parameter `binary_data_size` says how many, in the order of the JSON (Triton, "Binary Tensor Data").
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from .errors import RequestError, TensorError
from .oip import InferRequest, InferResponse, InputTensor, RequestedOutput, Value
from .tensor import DTYPES, Array, bytes_to_raw, datatype_of, to_raw

HEADER_LENGTH = "Inference-Header-Content-Length"

MAX_JSON_BYTES = 8 << 20
"""A longer JSON text would hold up everybody for tens of milliseconds; tensors may go in binary."""
_MOST_LISTED = 1 << 20
"""So many values of an output are as long."""

_BINARY_SIZE, _BINARY, _BINARY_OUTPUT = "binary_data_size", "binary_data", "binary_data_output"
_TAKES = {"b": "biu", "i": "iu", "u": "iu", "f": "iuf"}
"""Which kinds of numbers a JSON list may hold for each kind of dtype."""

_Parameters = dict[str, bool | int | float | str]


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: _Parameters = {}
    data: list[Any] | None = None


class _Output(msgspec.Struct):
    name: str
    parameters: _Parameters = {}


class _Request(msgspec.Struct):
    inputs: list[_Tensor]
    id: str = ""
    parameters: _Parameters = {}
    outputs: list[_Output] = []


@dataclass(frozen=True, slots=True)
class Body:
    """A response's bytes, and how many of them are JSON if not all."""

    content: bytes
    header_bytes: int | None = None


def decode_request(
    body: bytes, *, header_bytes: int | None, model_name: str, model_version: str
) -> InferRequest:
    """The request in a body; RequestError or TensorError if it is none."""
    size = len(body) if header_bytes is None else header_bytes
    if not 0 <= size <= len(body):
        raise RequestError(f"a header of {size} bytes in a body of {len(body)}")
    if size > MAX_JSON_BYTES:
        raise RequestError(
            f"{size} bytes of JSON, at most {MAX_JSON_BYTES} are read; send tensors in binary"
        )
    try:
        message = msgspec.json.decode(memoryview(body)[:size], type=_Request)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError(f"not the JSON of an inference request ({error})") from error
    binary_output = message.parameters.pop(_BINARY_OUTPUT, False)
    for output in message.outputs:
        output.parameters.setdefault(_BINARY, binary_output)
    parameters: dict[str, Value] = dict(message.parameters)
    if not message.outputs and binary_output:
        parameters[_BINARY_OUTPUT] = True
    return InferRequest(
        model_name=model_name,
        model_version=model_version,
        id=message.id,
        parameters=parameters,
        inputs=tuple(_inputs(message.inputs, body, size)),
        outputs=tuple(
            RequestedOutput(name=output.name, parameters=output.parameters)
            for output in message.outputs
        ),
    )


def encode_response(response: InferResponse, request: InferRequest) -> Body:
    """The body of an answer; each output in binary or as a list, as its request asked for it."""
    every = bool(request.parameters.get(_BINARY_OUTPUT))
    binary = {output.name for output in request.outputs if output.parameters.get(_BINARY)}
    outputs, raws = [], []
    for name, array in response.outputs.items():
        told: dict[str, Any] = {
            "name": name,
            "datatype": datatype_of(array),
            "shape": list(array.shape),
        }
        if every or name in binary:
            raws.append(to_raw(array))
            told["parameters"] = {_BINARY_SIZE: len(raws[-1])}
        else:
            told["data"] = _as_list(name, array)
        outputs.append(told)
    header = msgspec.json.encode(
        {
            "model_name": response.model_name,
            "model_version": response.model_version,
            **({"id": response.id} if response.id else {}),
            "parameters": dict(response.parameters),
            "outputs": outputs,
        }
    )
    return Body(b"".join((header, *raws)), len(header)) if raws else Body(header)


def _as_list(name: str, array: Array) -> list[Any]:
    """TensorError for what JSON cannot say, or not in a reasonable time."""
    if array.size > _MOST_LISTED:
        raise TensorError(
            f"output {name!r} has {array.size} values, at most {_MOST_LISTED} are listed; "
            f'ask for it in binary ("{_BINARY}": true)'
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise TensorError(
            f"output {name!r} holds NaN or infinity, for which JSON has no word; "
            f'ask for it in binary ("{_BINARY}": true)'
        )
    values: list[Any] = array.ravel().tolist()
    return values


def _inputs(tensors: Iterable[_Tensor], body: bytes, at: int) -> Iterator[InputTensor]:
    for tensor in tensors:
        shape = tuple(tensor.shape)
        if any(size < 0 for size in shape):
            raise TensorError(f"shape {tensor.shape} has a negative size")
        if _BINARY_SIZE in tensor.parameters:
            size = _binary_size(tensor, room=len(body) - at)
            raw = body[at : at + size]
            at += size
        else:
            raw = _listed(tensor)
        yield InputTensor(tensor.name, tensor.datatype, shape, raw)
    if at != len(body):
        raise RequestError(f"{len(body) - at} bytes behind the last input")


def _binary_size(tensor: _Tensor, *, room: int) -> int:
    size = tensor.parameters[_BINARY_SIZE]
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= room:
        raise TensorError(f"input {tensor.name!r} is said to have {size!r} bytes; {room} came")
    if tensor.data is not None:
        raise TensorError(f"input {tensor.name!r} came as a list and in binary")
    return size


def _listed(tensor: _Tensor) -> bytes:
    if tensor.data is None:
        raise TensorError(f"input {tensor.name!r} has neither data nor {_BINARY_SIZE}")
    if tensor.datatype == "BYTES":
        return bytes_to_raw([_text(each, tensor.name) for each in _flat(tensor.data)])
    dtype = DTYPES.get(tensor.datatype)
    if dtype is None:
        raise TensorError(f"datatype {tensor.datatype!r} is not one of {', '.join(DTYPES)}")
    try:
        given = np.asarray(tensor.data)
        if tensor.datatype == "UINT64" and given.dtype.kind == "f":
            given = _large(tensor.data)
        if given.size and given.dtype.kind not in _TAKES[dtype.kind]:
            raise TensorError(f"input {tensor.name!r} holds what is no {tensor.datatype}")
        return _exact(given, dtype, tensor)
    except ValueError as error:
        raise TensorError(f"input {tensor.name!r}: {error}") from None


def _large(data: list[Any]) -> Array:
    """Whole numbers up to 2**64, which numpy takes for floats if small ones are among them."""
    numbers = list(_flat(data))
    whole = all(type(each) is int and 0 <= each < 1 << 64 for each in numbers)
    return np.array(numbers, np.uint64 if whole else np.float64)


def _exact(given: Array, dtype: "np.dtype[np.generic]", tensor: _Tensor) -> bytes:
    with np.errstate(over="ignore"):
        array = given.astype(dtype)
    kept = np.isfinite(array).all() if dtype.kind == "f" else (array == given).all()
    if not kept:
        raise TensorError(f"input {tensor.name!r} holds numbers that {tensor.datatype} cannot")
    return to_raw(array)


def _flat(values: list[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        else:
            yield value


def _text(value: Any, name: str) -> bytes:
    if not isinstance(value, str):
        raise TensorError(f"input {name!r} is BYTES, and as a list takes texts alone")
    return value.encode()


def error_body(message: str, *, names: Sequence[str] = ("error",)) -> bytes:
    """The body of a response that is no answer; the message stands under each of the names."""
    return msgspec.json.encode(dict.fromkeys(names, message))


def json_body(fields: Mapping[str, Any] | list[Any]) -> bytes:
    """The body of any other response."""
    return msgspec.json.encode(fields)

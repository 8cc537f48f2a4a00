"""Reading and writing Open Inference Protocol messages, for both daemons and the client.

What the protocol lacks travels as parameters; their names are the constants below.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from ..protos import open_inference_pb2 as pb
from .deadline import MAX_BUDGET_MS, check_budget_ms
from .errors import RequestError, TensorError
from .tensor import (
    DTYPES,
    Array,
    bytes_from_raw,
    bytes_to_raw,
    datatype_of,
    from_raw,
    to_raw,
    view_raw,
)

PICTURE, PIXELS, FRAME = "picture", "pixels", "frame"
"""Inputs: an encoded picture, its pixels, what an edge sends of it."""
PROBABILITIES, LABELS = "probabilities", "labels"
"""Outputs: the answer."""

LATENCY_BUDGET_MS = "latency_budget_ms"
SENT_AT = "sent_at"
"""Request: when it was sent (shared/instant.py), from which a budget then runs."""
TIMEOUT_US = "timeout"
"""Triton's name for a budget, in microseconds."""
PRIORITY = "priority"
"""Request: Triton's level in a cloud, from 1, which goes first; 0 is the model's default."""
CONTRACT = "contract"
CUT = "cut"
CODEC = "codec"
PLAN = "plan"
CONFIDENCE = "confidence"
PROVISIONAL = "provisional"
FINAL = "final"
FOLLOW = "follow"
"""Request, to an edge: a provisional answer shall be followed by a final one, in its log.
To a cloud: an answer after the budget is still wanted, until the gRPC deadline."""
CLIENT_ID = "client_id"
"""Request: whose final answers these are, for whoever watches only their own."""
RESULTS_EPOCH = "results_epoch"
"""Response: a final answer will follow, in the log of this epoch."""
FOLLOW_MS = "follow_ms"
"""Response: after how long at most, from the deadline on."""
MISSING_OUTPUTS = "missing_outputs"
"""Outputs that were asked for and that the device does not make; their names, by comma."""
REMARKS = "remarks"
"""Response: what of the request's wishes cannot be kept, and what to do about it."""
OBJECTIVE, MIN_AGREEMENT = "objective", "min_agreement"
STAY_LOCAL, ONLY_CUTS, BYTES_PER_HOUR = "stay_local", "only_cuts", "bytes_per_hour"
MAX_SIMILARITY = "max_similarity"
"""What a request asks of its plan (edge/demand.py)."""
FRAME_OFFSET = "frame_offset"
"""Request on a stream: where this chunk of a frame in layers goes on; 0 begins one."""
MIN_LAYERS = "min_layers"
"""Request: how many layers of its frame an answer needs."""
WAY_BACK_MS = "way_back_ms"
"""Request: what of the time is needed for the answer's own way."""
LAYERS, LAYERS_IN_ALL = "layers", "layers_in_all"
CAME_BYTES, FRAME_BYTES = "came_bytes", "frame_bytes"
"""Response: what it was answered from of a frame in layers (shared/came.py)."""
STATUS = "status"
"""Response on a stream that failed: the status that a call of its own would have ended with."""
QUEUE_MS = "queue_ms"
COMPUTE_MS = "compute_ms"
FORECAST_MS = "forecast_ms"
"""What the cloud expects its queue to hold a request that arrived now."""

REGION = "shared_memory_region"
REGION_BYTES, REGION_OFFSET = "shared_memory_byte_size", "shared_memory_offset"
"""Parameters of a tensor: where it lies instead of in the message."""

_LISTED = {
    "b": ("bool_contents",),
    "i": ("int_contents", "int64_contents"),
    "u": ("uint_contents", "uint64_contents"),
    "f": ("fp32_contents", "fp64_contents"),
}
"""Where the values of a tensor lie that is not sent raw, by the kind of its dtype."""

_MOST_DIMENSIONS = 64
"""As numpy has it."""
_MOST_LISTED = 1 << 20
"""So many values, listed one by one, take 60 ms to read."""

Value = bool | int | float | str
Parameters = MutableMapping[str, pb.InferParameter]


def set_parameters(target: Parameters, values: Mapping[str, Value]) -> None:
    """Writes values into a message's parameters, each by its own type."""
    for name, value in values.items():
        match value:
            case bool():
                target[name].bool_param = value
            case int():
                target[name].int64_param = value
            case float():
                target[name].double_param = value
            case str():
                target[name].string_param = value


def get_parameters(source: Mapping[str, pb.InferParameter]) -> dict[str, Value]:
    """The values of a message's parameters; those that are set to nothing are left out."""
    values: dict[str, Value] = {}
    for name, parameter in source.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is not None:
            values[name] = getattr(parameter, choice)
    return values


def number(parameters: Mapping[str, Value], name: str) -> float | None:
    """A numeric parameter, also when it came as text; RequestError if it is no number."""
    value = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, bool):
        raise RequestError(f"parameter {name} must be a number, not {value}")
    try:
        return float(value)
    except ValueError:
        raise RequestError(f"parameter {name} must be a number, not {value!r}") from None
    except OverflowError:
        raise RequestError(f"parameter {name} is too large") from None


def flag(parameters: Mapping[str, Value], name: str) -> bool:
    """A parameter that is true or false, also when it came as text; RequestError if it is neither.

    A number is neither: 0 and 1 mean too many things.
    """
    value = parameters.get(name, False)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise RequestError(f"parameter {name} must be true or false, not {value!r}")
    return value


def requested_budget_ms(
    parameters: Mapping[str, Value], *, rpc_left_s: float | None, default_ms: float
) -> float:
    """The budget a request asks for: its parameter, Triton's timeout, the gRPC deadline, a default.

    A gRPC deadline shorter than the parameter wins, since after it nobody listens. Raises
    BudgetError for a budget that is not above 0 or is over an hour.
    """
    asked = number(parameters, LATENCY_BUDGET_MS) if parameters else None
    if asked is None and parameters:
        timeout_us = number(parameters, TIMEOUT_US)
        asked = timeout_us / 1e3 if timeout_us else None  # Triton: 0 means none
    if asked is not None:
        check_budget_ms(asked)
    if rpc_left_s is not None and math.isfinite(rpc_left_s):
        # A client that waits for days is patient, not mistaken in its units.
        rpc_ms = min(rpc_left_s * 1e3, MAX_BUDGET_MS)
        return rpc_ms if asked is None else min(asked, rpc_ms)
    return default_ms if asked is None else asked


_TIMEOUT_GRAINS = ((1.0, 1.0), (10.0, 10.0), (100.0, 100.0))
"""Below so many seconds, so many milliseconds."""


def timeout_grain_ms(left_s: float) -> float:
    """In which steps gRPC writes a time: always upwards, so that 60 s become 60.0 or 60.1.

    That of gRPC Core (src/core/lib/transport/timeout_encoding.cc), the coarsest there is.

    >>> timeout_grain_ms(0.25), timeout_grain_ms(2.5), timeout_grain_ms(60)
    (1.0, 10.0, 100.0)
    """
    for below_s, grain_ms in _TIMEOUT_GRAINS:
        if left_s < below_s:
            return grain_ms
    return 1_000.0


@dataclass(frozen=True, slots=True)
class Region:
    """A piece of a region of shared memory that both sides know by name."""

    name: str
    offset: int
    size_bytes: int

    @classmethod
    def of(cls, parameters: Mapping[str, Value]) -> "Region | None":
        """Where a tensor lies by its parameters, if in one; RequestError if they make no sense."""
        name = parameters.get(REGION)
        if name is None:
            return None
        offset, size = parameters.get(REGION_OFFSET, 0), parameters.get(REGION_BYTES)
        for number in (offset, size):
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise RequestError(f"{REGION_BYTES} and {REGION_OFFSET} must be whole numbers")
        return cls(str(name), int(offset), int(size or 0))


# What every request makes some of is a msgspec.Struct, which takes a tenth of the time to make
# that a frozen dataclass does.


class InputTensor(msgspec.Struct, frozen=True):
    """One input as it arrived: still raw, so that large bodies are not copied to be looked at.

    What lies in a `region` did not come along.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: bytes | memoryview
    region: Region | None = None

    def array(self) -> Array:
        return from_raw(self.raw, datatype=self.datatype, shape=self.shape)

    def view(self) -> Array:
        """The same as it lies, `aligned` or not, so that nothing is copied yet."""
        return view_raw(self.raw, datatype=self.datatype, shape=self.shape)

    def elements(self) -> list[bytes]:
        """The elements of a BYTES tensor."""
        return bytes_from_raw(self.raw, count=math.prod(self.shape))


class RequestedOutput(msgspec.Struct, frozen=True, kw_only=True):
    """An output that a request names, and how it wants it."""

    name: str
    parameters: Mapping[str, Value]


class InferRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request whichever way it came. `inputs` may be read once; each is checked as it is."""

    model_name: str
    model_version: str
    id: str
    parameters: Mapping[str, Value]
    inputs: Iterable[InputTensor]
    outputs: Sequence[RequestedOutput]


class InferResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Its answer, whichever way it goes. Outputs that were `placed` do not go along."""

    model_name: str
    model_version: str
    id: str
    parameters: Mapping[str, Value]
    outputs: Mapping[str, Array]
    placed: Mapping[str, Region] = {}


class _Declared(msgspec.Struct, frozen=True):
    """What a message says of an input, beside its raw contents."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: Mapping[str, Value]
    contents: pb.InferTensorContents


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """All that a message says, apart from its id and its raw contents."""

    model_name: str
    model_version: str
    parameters: Mapping[str, Value]
    inputs: tuple[_Declared, ...]
    outputs: tuple[RequestedOutput, ...]
    alone: _Declared | None = None
    """The one input, where all that may be wrong with it is what it brings."""

    @classmethod
    def of(cls, message: pb.ModelInferRequest) -> "Words":
        words = cls(
            model_name=message.model_name,
            model_version=message.model_version,
            parameters=get_parameters(message.parameters),
            inputs=tuple(
                _Declared(
                    tensor.name,
                    tensor.datatype,
                    _shape(tensor),
                    get_parameters(tensor.parameters),
                    tensor.contents,
                )
                for tensor in message.inputs
            ),
            outputs=tuple(
                RequestedOutput(name=output.name, parameters=get_parameters(output.parameters))
                for output in message.outputs
            ),
        )
        if len(words.inputs) != 1:
            return words
        (first,) = words.inputs
        plain = not first.parameters and min(first.shape, default=0) >= 0
        return msgspec.structs.replace(words, alone=first) if plain else words

    def request(self, *, id: str, contents: Sequence[bytes | memoryview]) -> InferRequest:
        """The request that says this, and brings these raw contents."""
        inputs: Iterable[InputTensor]
        if (alone := self.alone) is not None and len(contents) == 1:
            inputs = (InputTensor(alone.name, alone.datatype, alone.shape, contents[0]),)
        else:
            inputs = _tensors(self.inputs, contents)
        return InferRequest(
            model_name=self.model_name,
            model_version=self.model_version,
            id=id,
            parameters=self.parameters,
            inputs=inputs,
            outputs=self.outputs,
        )


def _shape(tensor: pb.ModelInferRequest.InferInputTensor) -> tuple[int, ...]:
    if len(tensor.shape) > _MOST_DIMENSIONS:
        raise TensorError(f"input {tensor.name!r} has {len(tensor.shape)} dimensions")
    return tuple(tensor.shape)


def read_request(message: pb.ModelInferRequest) -> InferRequest:
    """What came over gRPC."""
    return Words.of(message).request(id=message.id, contents=message.raw_input_contents)


def write_response(response: InferResponse) -> pb.ModelInferResponse:
    """What goes over gRPC."""
    message = pb.ModelInferResponse(
        model_name=response.model_name, model_version=response.model_version, id=response.id
    )
    set_parameters(message.parameters, response.parameters)
    for name, array in response.outputs.items():
        if region := response.placed.get(name):
            add_placed(message, name, array, region)
            message.raw_output_contents.append(b"")
        else:
            add_output(message, name, array)
    return message


def inputs_of(request: pb.ModelInferRequest) -> Iterator[InputTensor]:
    """The inputs of a request; TensorError for one without contents or with two."""
    return _tensors(Words.of(request).inputs, request.raw_input_contents)


def _tensors(
    declared: Sequence[_Declared], raw: Sequence[bytes | memoryview]
) -> Iterator[InputTensor]:
    regions = [Region.of(tensor.parameters) if tensor.parameters else None for tensor in declared]
    if raw and len(raw) != regions.count(None):
        raise TensorError(f"{regions.count(None)} inputs came with {len(raw)} raw contents")
    position = 0
    for tensor, region in zip(declared, regions, strict=True):
        if min(tensor.shape, default=0) < 0:
            raise TensorError(f"shape {list(tensor.shape)} has a negative size")
        sent: bytes | memoryview
        if region is not None:
            sent = b""
        elif raw:
            sent = raw[position]
            position += 1
        else:
            sent = _listed(tensor)
        yield InputTensor(tensor.name, tensor.datatype, tensor.shape, sent, region)


def _listed(tensor: _Declared) -> bytes:
    """The contents of a tensor that came as a list of values, as if they had come raw."""
    if tensor.datatype == "BYTES" and tensor.contents.bytes_contents:
        _check_listed(tensor, len(tensor.contents.bytes_contents))
        return bytes_to_raw(tensor.contents.bytes_contents)
    dtype = DTYPES.get(tensor.datatype)
    for listed in _LISTED[dtype.kind] if dtype is not None else ():
        if values := getattr(tensor.contents, listed):
            _check_listed(tensor, len(values))
            try:
                return to_raw(np.array(list(values), dtype))
            except OverflowError as error:
                raise TensorError(f"input {tensor.name!r}: {error}") from None
    raise TensorError(
        f"input {tensor.name!r} has no contents; send the input in raw_input_contents "
        f"(or in the contents of its datatype)"
    )


def _check_listed(tensor: _Declared, count: int) -> None:
    if count > _MOST_LISTED:
        raise TensorError(
            f"input {tensor.name!r} lists {count} values, at most {_MOST_LISTED} are read; "
            "send it in raw_input_contents"
        )


def add_input(request: pb.ModelInferRequest, name: str, array: Array) -> None:
    """Appends an array as a raw input."""
    request.inputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
    request.raw_input_contents.append(to_raw(array))


def add_bytes_input(request: pb.ModelInferRequest, name: str, elements: Sequence[bytes]) -> None:
    """Appends a BYTES tensor of one dimension as a raw input."""
    request.inputs.add(name=name, datatype="BYTES", shape=[len(elements)])
    request.raw_input_contents.append(bytes_to_raw(elements))


def add_output(response: pb.ModelInferResponse, name: str, array: Array) -> None:
    """Appends an array as a raw output."""
    response.outputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
    response.raw_output_contents.append(to_raw(array))


def add_placed(response: pb.ModelInferResponse, name: str, array: Array, region: Region) -> None:
    """Appends an output that lies in shared memory; its raw contents are empty."""
    told = response.outputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
    size = {REGION_BYTES: array.nbytes, REGION_OFFSET: region.offset}
    set_parameters(told.parameters, {REGION: region.name, **size})


def add_bytes_output(
    response: pb.ModelInferResponse,
    name: str,
    elements: Sequence[bytes],
    *,
    shape: Sequence[int],
) -> None:
    """Appends a BYTES tensor as a raw output."""
    response.outputs.add(name=name, datatype="BYTES", shape=shape)
    response.raw_output_contents.append(bytes_to_raw(elements))


def output_array(response: pb.ModelInferResponse, name: str) -> Array:
    """A raw output of a response by name; TensorError if it is missing or malformed."""
    for position, tensor in enumerate(response.outputs):
        if tensor.name == name and position < len(response.raw_output_contents):
            raw = response.raw_output_contents[position]
            return from_raw(raw, datatype=tensor.datatype, shape=tuple(tensor.shape))
    raise TensorError(f"the response has no raw output {name!r}")


def output_elements(response: pb.ModelInferResponse, name: str) -> list[bytes]:
    """A BYTES output of a response by name."""
    for position, tensor in enumerate(response.outputs):
        if tensor.name == name and position < len(response.raw_output_contents):
            return bytes_from_raw(
                response.raw_output_contents[position], count=math.prod(tensor.shape)
            )
    raise TensorError(f"the response has no raw output {name!r}")

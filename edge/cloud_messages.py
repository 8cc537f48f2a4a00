"""What is sent to the cloud with a request, and what its answer has to be. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import msgspec
import numpy as np

from ..protos import open_inference_pb2 as pb
from ..shared import oip as messages
from ..shared.answer import Probabilities
from ..shared.arrival import CHUNK_BYTES
from ..shared.came import Came
from ..shared.errors import RemoteRefused, RequestError
from ..shared.side import Tensors
from .cloud_times import sane_ms


@dataclass(frozen=True, slots=True)
class Beside:
    """What goes with a frame: the model's further inputs, and which of its outputs are wanted.

    `outputs` is None where the model has none but its answer; `named` says that the request asked
    for them by name, and is not content with an answer that lacks them. `priority` is a level of
    the cloud's model, 0 its default.
    """

    inputs: Tensors = field(default_factory=dict)
    outputs: tuple[str, ...] | None = None
    named: bool = False
    priority: int = 0

    @property
    def wanted(self) -> tuple[str, ...]:
        return self.outputs or ()

    @property
    def size_bytes(self) -> int:
        return sum(array.nbytes for array in self.inputs.values())


NOTHING = Beside()


@dataclass(frozen=True, slots=True)
class InLayers:
    """How a frame in layers is sent: where each ends, how many of them go, and an answer needs."""

    ends: tuple[int, ...]
    least: int
    most: int

    @property
    def sent_bytes(self) -> int:
        return self.ends[self.most - 1]

    def pieces(self, frame: bytes) -> Iterator[tuple[int, bytes]]:
        """Chunks of what goes, none of which has of two layers, and where they begin."""
        start = 0
        for end in self.ends[: self.most]:
            for at in range(start, end, CHUNK_BYTES):
                yield at, frame[at : min(at + CHUNK_BYTES, end)]
            start = end

    def rest_bytes(self, came: Came) -> float:
        """What was sent and had not come, about: of a chunk under way a half is taken to have."""
        if came.came_bytes >= self.sent_bytes:
            return 0.0
        end = next(end for end in self.ends if end > came.came_bytes)
        under_way = min(end - came.came_bytes, CHUNK_BYTES)
        return self.sent_bytes - came.came_bytes - under_way / 2


@dataclass(frozen=True, slots=True)
class Asked:
    """What an answer has to be an answer to."""

    id: str
    contract: str
    wanted: tuple[str, ...]
    in_layers: InLayers | None

    def check(self, response: pb.ModelInferResponse, contract: messages.Value | None) -> None:
        """RemoteRefused for what was said to another request; who names none is believed."""
        another = self.contract and contract not in (None, self.contract)
        if another or response.id not in ("", self.id):
            raise RemoteRefused("its answer is to another request")


class CloudAnswer(msgspec.Struct, frozen=True):
    """What came back, and where the time went."""

    probabilities: Probabilities
    queue_ms: float
    compute_ms: float
    forecast_ms: float
    network_ms: float
    outputs: Tensors = {}
    came: Came | None = None


def request_of(
    model: str,
    version: str,
    frame: bytes,
    parameters: dict[str, messages.Value],
    beside: Beside,
) -> pb.ModelInferRequest:
    """The message with one frame, whole or the first chunk of it."""
    request = pb.ModelInferRequest(model_name=model, model_version=version)
    request.inputs.add(name="frame", datatype="UINT8", shape=[len(frame)])
    request.raw_input_contents.append(frame)
    for name, array in beside.inputs.items():
        messages.add_input(request, name, array)
    if beside.outputs is not None:
        for name in (messages.PROBABILITIES, *beside.outputs):
            request.outputs.add(name=name)
    messages.set_parameters(request.parameters, parameters)
    return request


def in_pieces(
    model: str,
    version: str,
    frame: bytes,
    parameters: dict[str, messages.Value],
    beside: Beside,
    in_layers: InLayers,
) -> list[pb.ModelInferRequest]:
    """The request with the first chunk, then the chunks that follow, by an id of their stream."""
    requests: list[pb.ModelInferRequest] = []
    for at, chunk in in_layers.pieces(frame):
        offset: dict[str, messages.Value] = {messages.FRAME_OFFSET: at}
        if at == 0:
            request = request_of(model, version, chunk, {**parameters, **offset}, beside)
        else:
            request = request_of("", "", chunk, offset, NOTHING)
        requests.append(request)
    return requests


def check_came(came: Came | None, in_layers: InLayers) -> Came:
    """RemoteRefused unless it was answered from so much of this frame as an answer needs."""
    if came is None:
        raise RemoteRefused("its answer does not say what it was made of")
    ends = (0, *in_layers.ends)
    fits = came.layers_in_all == len(in_layers.ends) and came.frame_bytes == ends[-1]
    if not fits or came.layers < in_layers.least or came.came_bytes < ends[came.layers]:
        raise RemoteRefused(f"its answer cannot be read (it was {came})")
    return came


def read_answer(response: pb.ModelInferResponse, asked: Asked, *, total_ms: float) -> CloudAnswer:
    """An answer as it came; what it claims to have taken is no longer than all of it was."""
    try:
        parameters = messages.get_parameters(response.parameters)
        asked.check(response, parameters.get(messages.CONTRACT))
        probabilities = messages.output_array(response, messages.PROBABILITIES)[0]
        outputs = {name: messages.output_array(response, name) for name in asked.wanted}
        queue_ms, compute_ms, forecast_ms = (
            sane_ms(messages.number(parameters, name) or 0.0)
            for name in (messages.QUEUE_MS, messages.COMPUTE_MS, messages.FORECAST_MS)
        )
        came = Came.of(parameters)
    except (RequestError, IndexError) as error:
        raise RemoteRefused(f"its answer cannot be read ({error})") from error
    if queue_ms + compute_ms > total_ms:  # then nothing is known of either
        queue_ms, compute_ms = 0.0, min(compute_ms, total_ms)
    return CloudAnswer(
        probabilities=cast(Probabilities, probabilities.astype(np.float32)),
        queue_ms=queue_ms,
        compute_ms=compute_ms,
        forecast_ms=forecast_ms,
        network_ms=total_ms - queue_ms - compute_ms,
        outputs=outputs,
        came=came,
    )

"""The app's library: send a picture to an edge agent, get an answer.

with Client("127.0.0.1:8600") as client:
    answer = client.infer(Path("cat.jpg").read_bytes(), budget_ms=100)
    print(answer.label, answer.plan, answer.total_ms)
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import cast

import grpc
import numpy as np
import numpy.typing as npt

from .protos import oip
from .protos import open_inference_pb2 as pb
from .shared import oip as messages
from .shared.deadline import check_budget_ms
from .shared.errors import (
    RemoteError,
    RemoteRefused,
    RemoteTooLate,
    RemoteUnavailable,
    RequestError,
    from_rpc,
)
from .shared.security import Address, Security
from .shared.side import Tensors, as_declared
from .shared.tensor import TensorSpec

_PATIENCE_MS = 5_000.0
"""How long after its budget an answer is still waited for: late and marked beats lost."""


@dataclass(frozen=True)
class Answer:
    """One answer. Times are the agent's, but for `round_trip_ms`, which is the app's own.

    `outputs` are what the large model gives beside its answer, [1, ...] each. An answer of the
    device's own has none of them, and `missing_outputs` names those that were wanted.
    """

    request_id: str
    labels: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    plan: str
    confidence: float
    provisional: bool
    fallback: str
    sent_bytes: int
    total_ms: float
    budget_ms: float
    within_budget: bool
    steps_ms: dict[str, float]
    round_trip_ms: float
    outputs: Tensors = field(default_factory=dict)
    missing_outputs: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return self.labels[0]


class Client:
    """A connection to one agent. Thread-safe."""

    def __init__(self, address: str, *, security: Security | None = None) -> None:
        self._address = Address.parse(address)
        self._channel = (security or Security()).blocking_channel(self._address)
        self._infer = self._channel.unary_unary(
            oip.MODEL_INFER.path,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        self._index = self._channel.unary_unary(
            oip.REPOSITORY_INDEX.path,
            request_serializer=pb.RepositoryIndexRequest.SerializeToString,
            response_deserializer=pb.RepositoryIndexResponse.FromString,
        )
        self._metadata = self._channel.unary_unary(
            oip.MODEL_METADATA.path,
            request_serializer=pb.ModelMetadataRequest.SerializeToString,
            response_deserializer=pb.ModelMetadataResponse.FromString,
        )
        self._model = ""
        self._specs: dict[str, tuple[TensorSpec, ...]] = {}

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def models(self, *, wait_ms: float = 3_000.0) -> list[str]:
        """The models served there; waits a while for a daemon that is only starting."""
        try:
            reply = self._index(
                pb.RepositoryIndexRequest(), timeout=wait_ms / 1e3, wait_for_ready=True
            )
        except grpc.RpcError as error:
            raise self._unreached(error, wait_ms) from error
        return [model.name for model in reply.models]

    def wait_until_loaded(self, model: str, *, wait_ms: float = 60_000.0) -> None:
        """Until a model is served there; RemoteError if that takes longer, or it never will be."""
        try:
            self._metadata(
                pb.ModelMetadataRequest(name=model), timeout=wait_ms / 1e3, wait_for_ready=True
            )
        except grpc.RpcError as error:
            raise self._unreached(error, wait_ms) from error

    def inputs(self, model: str = "", *, wait_ms: float = 3_000.0) -> tuple[TensorSpec, ...]:
        """What a model takes beside a picture; most take nothing. Asked once."""
        model = model or self._only_model()
        if model not in self._specs:
            try:
                reply = self._metadata(
                    pb.ModelMetadataRequest(name=model), timeout=wait_ms / 1e3, wait_for_ready=True
                )
            except grpc.RpcError as error:
                raise self._unreached(error, wait_ms) from error
            self._specs[model] = tuple(
                TensorSpec(each.name, each.datatype, tuple(each.shape[1:]))
                for each in reply.inputs
                if each.name not in (messages.PICTURE, messages.PIXELS)
            )
        return self._specs[model]

    def infer(
        self,
        picture: bytes | npt.NDArray[np.uint8],
        *,
        inputs: Mapping[str, npt.ArrayLike] | None = None,
        outputs: Sequence[str] | None = None,
        budget_ms: float | None = None,
        model: str = "",
        request_id: str = "",
    ) -> Answer:
        """The answer for an encoded picture, or RGB uint8 [h, w, 3]; RemoteError if none came.

        `inputs` are what the model takes beside the picture, by name. `outputs` names those wanted
        beside the answer: only a cloud makes them, and it is asked if there is time. If None, all
        come that the best answer has. Without a budget the bundle's default holds.
        """
        request = pb.ModelInferRequest(
            model_name=model or self._only_model(), id=request_id or uuid.uuid4().hex
        )
        if isinstance(picture, bytes):
            messages.add_bytes_input(request, "picture", [picture])
        else:
            messages.add_input(request, "pixels", picture)
        if inputs:
            self._add_inputs(request, inputs)
        if outputs is not None:
            for name in (messages.PROBABILITIES, messages.LABELS, *outputs):
                request.outputs.add(name=name)
        timeout_s = None
        if budget_ms is not None:
            check_budget_ms(budget_ms)
            messages.set_parameters(
                request.parameters, {messages.LATENCY_BUDGET_MS: float(budget_ms)}
            )
            timeout_s = (budget_ms + _PATIENCE_MS) / 1e3
        start_s = time.monotonic()
        try:
            response = self._infer(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise from_rpc(error) from error
        round_trip_ms = (time.monotonic() - start_s) * 1e3
        try:
            return _read(response, round_trip_ms=round_trip_ms)
        except (RequestError, IndexError, ValueError) as error:
            raise RemoteRefused(f"its answer cannot be read ({error})") from error

    def _add_inputs(
        self, request: pb.ModelInferRequest, inputs: Mapping[str, npt.ArrayLike]
    ) -> None:
        specs = {spec.name: spec for spec in self.inputs(request.model_name)}
        for name, values in inputs.items():
            if name not in specs:
                known = ", ".join(map(str, specs.values())) or "nothing"
                raise RequestError(f"input {name!r} is unknown; beside a picture {known} is taken")
            messages.add_input(request, name, as_declared(values, specs[name])[None])

    def _unreached(self, error: grpc.RpcError, wait_ms: float) -> RemoteError:
        fault = from_rpc(error)
        if isinstance(fault, RemoteTooLate):
            return RemoteUnavailable(
                f"nobody answers at {self._address} within {wait_ms:g} ms; is the daemon running?"
            )
        return fault

    def _only_model(self) -> str:
        if not self._model:
            models = self.models()
            if len(models) != 1:
                raise RemoteRefused(f"it serves {len(models)} models; name one of {models}")
            (self._model,) = models
        return self._model


def _read(response: pb.ModelInferResponse, *, round_trip_ms: float) -> Answer:
    values = messages.get_parameters(response.parameters)
    steps = {
        name.removeprefix("step_").removesuffix("_ms"): float(value)
        for name, value in values.items()
        if name.startswith("step_")
    }
    probabilities = messages.output_array(response, "probabilities")[0]
    labels = messages.output_elements(response, "labels")
    if not labels:
        raise ValueError("no labels")
    own = (messages.PROBABILITIES, messages.LABELS)
    missing = str(values.get(messages.MISSING_OUTPUTS, ""))
    return Answer(
        request_id=response.id,
        labels=tuple(label.decode() for label in labels),
        probabilities=cast(npt.NDArray[np.float32], probabilities),
        plan=str(values.get(messages.PLAN, "")),
        confidence=messages.number(values, messages.CONFIDENCE) or 0.0,
        provisional=bool(values.get(messages.PROVISIONAL, False)),
        fallback=str(values.get("fallback", "")),
        sent_bytes=int(messages.number(values, "sent_bytes") or 0),
        total_ms=messages.number(values, "total_ms") or 0.0,
        budget_ms=messages.number(values, "budget_ms") or 0.0,
        within_budget=bool(values.get("within_budget", False)),
        steps_ms=steps,
        round_trip_ms=round_trip_ms,
        outputs={
            each.name: messages.output_array(response, each.name)
            for each in response.outputs
            if each.name not in own
        },
        missing_outputs=tuple(missing.split(",")) if missing else (),
    )

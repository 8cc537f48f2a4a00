"""A connection to an edge agent."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

import grpc
import numpy as np
import numpy.typing as npt

from ..protos import fleet_pb2, oip
from ..protos import open_inference_pb2 as pb
from ..shared import oip as messages
from ..shared.deadline import check_budget_ms
from ..shared.errors import (
    RemoteError,
    RemoteRefused,
    RemoteTooLate,
    RemoteUnavailable,
    RequestError,
    from_rpc,
)
from ..shared.instant import tell
from ..shared.security import Address, Security
from ..shared.side import as_declared
from ..shared.tensor import TensorSpec
from .answer import Answer, read_answer
from .finals import Finals
from .wish import ANYTHING, Wish

_WATCH_AGENT = "/hybridge.fleet.v1.Edge/WatchAgent"
_WATCH_RESULTS = "/hybridge.fleet.v1.Edge/WatchResults"
_PATIENCE_MS = 5_000.0
"""How long after its budget an answer is still waited for: late and marked beats lost."""


class Client:
    """A connection to one agent. Thread-safe.

    `client_id` tells the edge whose final answers are whose. Give one that stays the same to find,
    after a restart of the app, what came meanwhile; otherwise each client makes up its own.
    """

    def __init__(
        self, address: str, *, security: Security | None = None, client_id: str = ""
    ) -> None:
        self._client_id = client_id or uuid.uuid4().hex
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
        self._states = self._channel.unary_stream(
            _WATCH_AGENT,
            request_serializer=fleet_pb2.WatchAgentRequest.SerializeToString,
            response_deserializer=fleet_pb2.AgentState.FromString,
        )
        results = self._channel.unary_stream(
            _WATCH_RESULTS,
            request_serializer=fleet_pb2.WatchResultsRequest.SerializeToString,
            response_deserializer=fleet_pb2.LateResult.FromString,
        )
        self.finals = Finals(
            lambda request: results(request, wait_for_ready=True), client_id=self._client_id
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
        self.finals.close()
        self._channel.close()

    @property
    def address(self) -> str:
        """Where the edge is."""
        return str(self._address)

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
        priority: int = 0,
        follow: bool = False,
        wish: Wish = ANYTHING,
    ) -> Answer:
        """The answer for an encoded picture, or RGB uint8 [h, w, 3]; RemoteError if none came.

        `inputs` are what the model takes beside the picture, by name. `outputs` names those wanted
        beside the answer: only a cloud makes them, and it is asked if there is time. If None, all
        come that the best answer has. Without a budget the bundle's default holds. A `priority`
        says where a cloud queues it: 1 goes first, 0 is the default. With `follow`
        an answer that the device gives in the cloud's place is followed by a final one:
        `answer.final_follows` says so, and `client.finals` hands it out. A `request_id` names one
        request: what is sent again under the same one is the same. `wish` says what is to be best,
        and what must not happen.
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
        messages.set_parameters(request.parameters, wish.parameters())
        if priority:
            messages.set_parameters(request.parameters, {messages.PRIORITY: priority})
        timeout_s = None
        if budget_ms is not None:
            check_budget_ms(budget_ms)
            messages.set_parameters(
                request.parameters, {messages.LATENCY_BUDGET_MS: float(budget_ms)}
            )
            timeout_s = (budget_ms + _PATIENCE_MS) / 1e3
        if not follow:
            return self._send(request, timeout_s=timeout_s)
        messages.set_parameters(
            request.parameters, {messages.FOLLOW: True, messages.CLIENT_ID: self._client_id}
        )
        self.finals.ask(request.id)
        try:
            answer = self._send(request, timeout_s=timeout_s)
        except BaseException:
            self.finals.withdraw(request.id)
            raise
        self.finals.answered(answer)
        return answer

    def watch_agent(self, *, interval_ms: int = 1_000) -> Iterator[fleet_pb2.AgentState]:
        """How the agent is doing, now and then at an interval; RemoteError when it goes away."""
        call = self._states(fleet_pb2.WatchAgentRequest(interval_ms=interval_ms))
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_rpc(error) from error
        finally:
            call.cancel()

    def agent_state(self, *, wait_ms: float = 3_000.0) -> fleet_pb2.AgentState:
        """How the agent is doing now."""
        call = self._states(
            fleet_pb2.WatchAgentRequest(), timeout=wait_ms / 1e3, wait_for_ready=True
        )
        try:
            return next(call)
        except grpc.RpcError as error:
            raise self._unreached(error, wait_ms) from error
        finally:
            call.cancel()

    def _send(self, request: pb.ModelInferRequest, *, timeout_s: float | None) -> Answer:
        start_s = time.monotonic()
        if told := tell(start_s):
            messages.set_parameters(request.parameters, {messages.SENT_AT: told})
        try:
            response = self._infer(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise from_rpc(error) from error
        return read_answer(response, round_trip_ms=(time.monotonic() - start_s) * 1e3)

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

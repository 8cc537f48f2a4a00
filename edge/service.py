"""The edge's own Open Inference Protocol service: apps speak to it as to any OIP server."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from .. import __version__
from ..protos import oip
from ..protos import open_inference_pb2 as pb
from ..shared import oip as messages
from ..shared.answer import top_classes
from ..shared.bundle import Bundle
from ..shared.deadline import Clock, Deadline
from ..shared.errors import RequestError, TensorError, UnknownModel
from ..shared.instant import since_ms
from ..shared.manifest import Large
from ..shared.oip import LABELS, PICTURE, PIXELS, PROBABILITIES
from ..shared.side import read_sides, split_inputs, wanted_outputs
from ..shared.tensor import Array
from .agent import Agent
from .answer import Answer
from .cloud_messages import NOTHING, Beside
from .demand import read_demand
from .monitor import Monitor
from .results import ResultLog

TOP_K = "top_k"
_TOP_K = 5
_NO_LEVEL = 1 << 31


@dataclass(frozen=True, slots=True)
class Follow:
    """The wish for a final answer after a provisional one, and whose wish it is."""

    client_id: str = ""


class EdgeService(oip.Servicer):
    """Decodes requests, asks the agent, encodes answers."""

    def __init__(
        self,
        agent: Agent,
        bundle: Bundle,
        *,
        results: ResultLog,
        monitor: Monitor,
        clock: Clock,
    ) -> None:
        self._agent = agent
        self._bundle = bundle
        self._results = results
        self._monitor = monitor
        self._clock = clock
        self.ready = False

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: oip.Context
    ) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: oip.Context
    ) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self.ready)

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: oip.Context
    ) -> pb.ModelReadyResponse:
        try:
            self._check_model(request.name, request.version)
        except UnknownModel:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self.ready)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: oip.Context
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="hybridge-edge", version=__version__)

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: oip.Context
    ) -> pb.ModelMetadataResponse:
        self._check_model(request.name, request.version)
        manifest = self._bundle.manifest
        tensor = pb.ModelMetadataResponse.TensorMetadata
        return pb.ModelMetadataResponse(
            name=manifest.name,
            versions=[manifest.version],
            platform="hybridge_edge",
            inputs=[
                tensor(name=PICTURE, datatype="BYTES", shape=[1]),
                tensor(name=PIXELS, datatype="UINT8", shape=[-1, -1, 3]),
                *(
                    tensor(name=spec.name, datatype=spec.datatype, shape=[1, *spec.shape])
                    for spec in manifest.large.inputs
                ),
            ],
            outputs=[
                tensor(name=PROBABILITIES, datatype="FP32", shape=[1, manifest.classes]),
                tensor(name=LABELS, datatype="BYTES", shape=[1, -1]),
                *(
                    tensor(name=spec.name, datatype=spec.datatype, shape=[1, *spec.shape])
                    for spec in manifest.large.outputs
                ),
            ],
        )

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: oip.Context
    ) -> pb.RepositoryIndexResponse:
        manifest = self._bundle.manifest
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(
                    name=manifest.name, version=manifest.version, state="READY"
                )
            ]
        )

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: oip.Context
    ) -> pb.ModelInferResponse:
        arrived_s = self._clock()
        self._check_model(request.model_name, request.model_version)
        picture, beside = read_request(request, self._bundle.manifest.large)
        parameters = messages.get_parameters(request.parameters)
        top_k = read_top_k(parameters)
        follow = read_follow(parameters, request_id=request.id)
        deadline, way_in_ms = read_deadline(
            parameters,
            rpc_left_s=context.time_remaining(),
            default_ms=self._bundle.manifest.default_budget_ms,
            now_s=arrived_s,
        )
        on_final = self._keep_final(request.id, follow, top_k=top_k) if follow else None
        demand = read_demand(parameters, self._agent.demand)
        answer = await self._agent.answer(
            picture, deadline, beside, demand=demand, on_final=on_final, way_in_ms=way_in_ms
        )
        self._monitor.record(answer, now_s=self._clock())
        response = self._response(request.id, answer, top_k=top_k)
        if remarks := self._agent.remarks(demand):
            messages.set_parameters(response.parameters, {messages.REMARKS: remarks})
        if follow and answer.outstanding:
            later: dict[str, messages.Value] = {
                messages.RESULTS_EPOCH: self._results.epoch,
                messages.FOLLOW_MS: self._agent.follow_ms,
            }
            messages.set_parameters(response.parameters, later)
        ready_s = self._clock()
        # The stubs mistake what this takes.
        context.add_done_callback(cast(Any, lambda _: self._left(ready_s)))
        return response

    def _left(self, ready_s: float) -> None:
        """An answer has been written."""
        self._agent.lateness.left((self._clock() - ready_s) * 1e3)

    def _keep_final(
        self, request_id: str, follow: "Follow", *, top_k: int
    ) -> Callable[[Answer], None]:
        """What is done with a final answer once there is one."""

        def keep(answer: Answer) -> None:
            self._monitor.record(answer, now_s=self._clock())
            response = self._response(request_id, answer, top_k=top_k)
            self._results.append(
                request_id, response.SerializeToString(), client_id=follow.client_id
            )

        return keep

    def _check_model(self, name: str, version: str) -> None:
        manifest = self._bundle.manifest
        if name != manifest.name:
            raise UnknownModel(f"{name!r}; this edge runs {manifest.name!r}")
        if version not in ("", manifest.version):
            raise UnknownModel(f"{name!r} version {version}; here is {manifest.version}")

    def _response(self, request_id: str, answer: Answer, *, top_k: int) -> pb.ModelInferResponse:
        manifest = self._bundle.manifest
        response = pb.ModelInferResponse(
            model_name=manifest.name, model_version=manifest.version, id=request_id
        )
        top = top_classes(answer.probabilities, top_k)
        labels = [self._bundle.labels[position].encode() for position in top]
        messages.add_output(response, PROBABILITIES, cast(Array, answer.probabilities[None]))
        messages.add_bytes_output(response, LABELS, labels, shape=[1, len(labels)])
        for name, array in answer.outputs.items():
            messages.add_output(response, name, array)
        messages.set_parameters(response.parameters, answer_parameters(answer))
        return response


def answer_parameters(answer: Answer) -> dict[str, messages.Value]:
    """What an answer says of itself beside its tensors."""
    return {
        messages.PLAN: str(answer.plan),
        messages.CONFIDENCE: answer.confidence,
        messages.PROVISIONAL: answer.provisional,
        **({messages.FINAL: True} if answer.final else {}),
        "fallback": answer.fallback,
        "sent_bytes": answer.sent_bytes,
        "total_ms": answer.total_ms,
        "budget_ms": answer.budget_ms,
        "within_budget": answer.within_budget,
        **(answer.came.parameters() if answer.came else {}),
        **({messages.MISSING_OUTPUTS: ",".join(answer.missing)} if answer.missing else {}),
        **{f"step_{name}_ms": ms for name, ms in answer.steps_ms.items()},
    }


def read_deadline(
    parameters: Mapping[str, messages.Value],
    *,
    rpc_left_s: float | None,
    default_ms: float,
    now_s: float,
) -> tuple[Deadline, float | None]:
    """When a request's budget ends, and how long it was under way; None if it does not tell.

    A budget runs from when the request was sent, if that was on this machine. Longer ago than its
    budget it was not, as far as anybody could still care: such an instant is another clock's.
    RequestError for what is no instant, BudgetError for what is no budget.
    """
    sent_at = parameters.get(messages.SENT_AT)
    if sent_at is not None and not isinstance(sent_at, str):
        raise RequestError(f"parameter {messages.SENT_AT} must be text, not {sent_at!r}")
    way_in_ms = since_ms(sent_at, now_s=now_s) if sent_at else None
    if way_in_ms is not None:
        # A gRPC deadline is told by what is left of it.
        left_s = None if rpc_left_s is None else rpc_left_s + way_in_ms / 1e3
        budget_ms = messages.requested_budget_ms(
            parameters, rpc_left_s=left_s, default_ms=default_ms
        )
        if way_in_ms < budget_ms:
            return Deadline.after_ms(budget_ms, now_s=now_s - way_in_ms / 1e3), way_in_ms
    budget_ms = messages.requested_budget_ms(
        parameters, rpc_left_s=rpc_left_s, default_ms=default_ms
    )
    return Deadline.after_ms(budget_ms, now_s=now_s), None


def read_top_k(parameters: Mapping[str, messages.Value]) -> int:
    """How many labels a request asks for; RequestError unless it is a number of them."""
    asked = messages.number(parameters, TOP_K)
    if asked is None:
        return _TOP_K
    if not (asked >= 1 and asked.is_integer()):
        raise RequestError(f"parameter {TOP_K} must be a whole number of at least 1, not {asked:g}")
    return int(asked)


def read_follow(parameters: Mapping[str, messages.Value], *, request_id: str) -> Follow | None:
    """Whether a final answer shall follow; RequestError for what is neither yes nor no.

    A request without an id cannot be followed: nobody could tell whose final answer that is.
    """
    if not messages.flag(parameters, messages.FOLLOW):
        return None
    if not request_id:
        raise RequestError(f"parameter {messages.FOLLOW} needs a request with an id")
    client_id = parameters.get(messages.CLIENT_ID, "")
    if not isinstance(client_id, str):
        raise RequestError(f"parameter {messages.CLIENT_ID} must be text, not {client_id!r}")
    return Follow(client_id)


def read_request(request: pb.ModelInferRequest, large: Large) -> tuple[bytes | Array, Beside]:
    """The picture of a request, what came beside it, and which outputs are wanted beside."""
    tensor, sent = split_inputs(messages.inputs_of(request), pictures=(PICTURE, PIXELS))
    wanted = wanted_outputs(request.outputs, own=(PROBABILITIES, LABELS), specs=large.outputs)
    sides = read_sides(sent, large.inputs, items=1)
    priority = read_priority(messages.get_parameters(request.parameters))
    if not large.inputs and not large.outputs and not priority:
        return read_picture(tensor), NOTHING
    beside = Beside(
        inputs=sides,
        outputs=wanted if large.outputs else None,
        named=bool(request.outputs and wanted),
        priority=priority,
    )
    return read_picture(tensor), beside


def read_priority(parameters: Mapping[str, messages.Value]) -> int:
    """A level, which the cloud's model has or has not; RequestError if it can be none."""
    asked = messages.number(parameters, messages.PRIORITY) or 0.0
    if not (asked.is_integer() and 0 <= asked < _NO_LEVEL):
        raise RequestError(
            f"parameter {messages.PRIORITY} is {parameters[messages.PRIORITY]}; it must be a whole "
            "number, 1 goes first, 0 is the default"
        )
    return int(asked)


def read_picture(tensor: messages.InputTensor) -> bytes | Array:
    """What a request shows: `picture` BYTES [1], or `pixels` UINT8 [h, w, 3] or [1, h, w, 3]."""
    if tensor.name == PICTURE:
        if tensor.datatype != "BYTES" or tensor.shape not in ((1,), (1, 1)):
            raise TensorError(f"{PICTURE} is BYTES [1], one encoded picture a request")
        return tensor.elements()[0]
    shape = tensor.shape[1:] if len(tensor.shape) == 4 else tensor.shape
    if tensor.datatype != "UINT8" or tensor.shape[:-3] not in ((), (1,)):
        raise TensorError(f"{PIXELS} is UINT8 [height, width, 3], one picture a request")
    return tensor.array().reshape(shape)

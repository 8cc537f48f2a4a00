"""One inference in the cloud: from a request's message to its answer's, without the transport."""

from collections.abc import Iterable

from ..protos import open_inference_pb2 as pb
from ..shared import oip
from ..shared.deadline import Clock, Deadline, monotonic
from ..shared.errors import DeadlineUnmet, TensorError
from .inputs import PIXELS, Input, ModelName, read_input
from .loader import Loader
from .model import ServedModel
from .repository import Repository
from .work import Answer
from .worker import Worker

PROBABILITIES = "probabilities"


class Inference:
    """Answers requests about the models of a repository."""

    def __init__(
        self, repository: Repository, *, worker: Worker, loader: Loader, clock: Clock = monotonic
    ) -> None:
        self.repository = repository
        self.worker = worker
        self._loader = loader
        self._clock = clock

    def start(self) -> None:
        """Takes work for whole models now, for tails as they are loaded in the background."""
        for model in self.repository:
            self.worker.add_stage(model.whole)
        self._loader.start(stage for model in self.repository for stage in model.stages[1:])

    async def infer(
        self, request: pb.ModelInferRequest, *, rpc_left_s: float | None
    ) -> pb.ModelInferResponse:
        """The answer to a request, or one of the faults of shared/errors."""
        start_s = self._clock()
        named = ModelName(name=request.model_name, version=request.model_version)
        parameters = oip.get_parameters(request.parameters)
        manifest = self.repository.model(named.name, named.version).bundle.manifest
        budget_ms = oip.requested_budget_ms(
            parameters, rpc_left_s=rpc_left_s, default_ms=manifest.default_budget_ms
        )
        if rpc_left_s is not None and rpc_left_s <= 0:
            raise DeadlineUnmet("it passed on the way here")
        deadline = Deadline.after_ms(budget_ms, now_s=start_s)
        _check_outputs(request.outputs)
        found = await read_input(
            oip.single_input(request), parameters, named=named, repository=self.repository
        )
        await self._loader.ready(found.stage, deadline=deadline)
        answer = await self.worker.run(
            found.stage, load=found.load, items=found.items, deadline=deadline
        )
        return self._response(request.id, found, answer)

    def metadata(self, *, name: str, version: str) -> pb.ModelMetadataResponse:
        """What any client of the protocol needs; frames and pictures are for who knows us."""
        model = self.repository.model(name, version)
        response = pb.ModelMetadataResponse(
            name=model.name,
            versions=[other.version for other in self.repository.versions(name)],
            platform="onnxruntime_onnx",
        )
        response.inputs.add(name=PIXELS, datatype="UINT8", shape=[-1, *model.whole.contract.shape])
        response.outputs.add(name=PROBABILITIES, datatype="FP32", shape=[-1, _classes(model)])
        return response

    def _response(self, request_id: str, found: Input, answer: Answer) -> pb.ModelInferResponse:
        response = pb.ModelInferResponse(
            model_name=found.model.name, model_version=found.model.version, id=request_id
        )
        oip.set_parameters(
            response.parameters,
            {
                oip.QUEUE_MS: answer.queue_ms,
                oip.COMPUTE_MS: answer.compute_ms,
                oip.FORECAST_MS: self.worker.forecast_ms(),
                oip.CONTRACT: found.stage.contract.id,
            },
        )
        oip.add_output(response, PROBABILITIES, answer.probabilities)
        return response


def _classes(model: ServedModel) -> int:
    return model.bundle.manifest.classes


def _check_outputs(
    outputs: Iterable[pb.ModelInferRequest.InferRequestedOutputTensor],
) -> None:
    for output in outputs:
        if output.name != PROBABILITIES:
            raise TensorError(f"output {output.name!r} is not {PROBABILITIES!r}")
        if "classification" in output.parameters:
            raise TensorError("the classification extension is not served; rank probabilities")

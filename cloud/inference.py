"""One inference in the cloud: from a request's message to its answer's, without the transport."""

from collections.abc import Iterable

from ..protos import open_inference_pb2 as pb
from ..shared import oip
from ..shared.deadline import Clock, Deadline, monotonic
from ..shared.errors import DeadlineUnmet
from ..shared.manifest import Runtime
from ..shared.side import wanted_outputs
from .inputs import Input, ModelName, read_input
from .loader import Loader
from .repository import Repository
from .work import Answer
from .worker import Worker

_PLATFORMS = {Runtime.ONNXRUNTIME: "onnxruntime_onnx", Runtime.TORCH: "pytorch_libtorch"}
"""As Triton calls them."""


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
        found = await read_input(
            oip.inputs_of(request), parameters, named=named, repository=self.repository
        )
        wanted = wanted_outputs(
            request.outputs, own=(oip.PROBABILITIES,), specs=found.stage.outputs
        )
        await self._loader.ready(found.stage, deadline=deadline)
        answer = await self.worker.run(
            found.stage, load=found.load, items=found.items, sides=found.sides, deadline=deadline
        )
        return self._response(request.id, found, answer, wanted=wanted)

    def metadata(self, *, name: str, version: str) -> pb.ModelMetadataResponse:
        """What any client of the protocol needs; frames and pictures are for who knows us."""
        model = self.repository.model(name, version)
        response = pb.ModelMetadataResponse(
            name=model.name,
            versions=[other.version for other in self.repository.versions(name)],
            platform=_PLATFORMS[model.runtime],
        )
        shape, classes = model.whole.contract.shape, model.bundle.manifest.classes
        response.inputs.add(name=oip.PIXELS, datatype="UINT8", shape=[-1, *shape])
        response.outputs.add(name=oip.PROBABILITIES, datatype="FP32", shape=[-1, classes])
        for target, specs in (
            (response.inputs, model.whole.inputs),
            (response.outputs, model.whole.outputs),
        ):
            for spec in specs:
                target.add(name=spec.name, datatype=spec.datatype, shape=[-1, *spec.shape])
        return response

    def _response(
        self, request_id: str, found: Input, answer: Answer, *, wanted: Iterable[str]
    ) -> pb.ModelInferResponse:
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
        oip.add_output(response, oip.PROBABILITIES, answer.probabilities)
        for name in wanted:
            oip.add_output(response, name, answer.outputs[name])
        return response

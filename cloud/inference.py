"""One inference in the cloud: from a request to its answer, without the transport."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ..shared import oip
from ..shared.deadline import Clock, Deadline, monotonic
from ..shared.errors import DeadlineRefused, HybridgeError
from ..shared.manifest import Runtime
from ..shared.side import wanted_outputs
from ..shared.tensor import TensorSpec
from .inputs import Input, ModelName, read_input
from .loader import Loader
from .model import ServedModel
from .repository import Repository
from .statistics import Record, Statistics
from .work import Answer
from .worker import Worker

_PLATFORMS = {Runtime.ONNXRUNTIME: "onnxruntime_onnx", Runtime.TORCH: "pytorch_libtorch"}
"""As Triton calls them."""


class Inference:
    """Answers requests about the models of a repository."""

    def __init__(
        self,
        repository: Repository,
        *,
        worker: Worker,
        loader: Loader,
        statistics: Statistics,
        clock: Clock = monotonic,
    ) -> None:
        self.repository = repository
        self.worker = worker
        self.statistics = statistics
        self._loader = loader
        self._clock = clock

    async def start(self) -> None:
        """Takes work for whole models now, for tails as they are loaded in the background."""
        for model in self.repository:
            await self.serve(model)

    async def serve(self, model: ServedModel) -> None:
        """Takes work for a model of the repository, whose whole is loaded."""
        self.statistics.add(model.name, model.version)
        await self.worker.add_stage(model.whole)
        self._loader.start(model.stages[1:])

    async def retire(self, model: ServedModel) -> None:
        """Takes no more work for a model; returns once what was accepted has ended."""
        await self._loader.forget(model.stages)
        for stage in model.stages:
            await self.worker.remove_stage(stage)

    async def infer(
        self,
        request: oip.InferRequest,
        *,
        transport_left_s: float | None = None,
        arrived_s: float | None = None,
    ) -> oip.InferResponse:
        """The answer to a request, or one of the faults of shared/errors.

        `transport_left_s` is the time after which the transport itself ends the call, if it does;
        `arrived_s` is when its budget began to run, if not now.
        """
        with self.statistics.request(arrived_s) as record:
            found, deadline = await self._read(request, record, transport_left_s)
            wanted = wanted_outputs(
                request.outputs, own=(oip.PROBABILITIES,), specs=found.stage.outputs
            )
            await self._loader.ready(found.stage, deadline=deadline)
            answer = await self.worker.run(
                found.stage,
                load=found.load,
                at_hand=found.at_hand,
                items=found.items,
                sides=found.sides,
                deadline=deadline,
            )
            response = self._response(request.id, found, answer, wanted=wanted)
            record.answered(answer, items=found.items, now_s=self._clock())
            return response

    @contextmanager
    def reading(self, name: str, version: str) -> Iterator[None]:
        """Counts, for the model it was meant for, what turns out to be no request."""
        started_s = self._clock()
        try:
            yield
        except HybridgeError as error:
            version = version or next((m.version for m in self.repository if m.name == name), "")
            figures = self.statistics.of(name, version)
            Record(started_s, figures).failed(error, now_s=self._clock())
            raise

    async def _read(
        self, request: oip.InferRequest, record: Record, transport_left_s: float | None
    ) -> tuple[Input, Deadline]:
        named = ModelName(name=request.model_name, version=request.model_version)
        model = self.repository.model(named.name, named.version)
        record.model = self.statistics.of(model.name, model.version)
        budget_ms = oip.requested_budget_ms(
            request.parameters,
            rpc_left_s=transport_left_s,
            default_ms=model.bundle.manifest.default_budget_ms,
        )
        if transport_left_s is not None and transport_left_s <= 0:
            raise DeadlineRefused("it passed on the way here")
        deadline = Deadline.after_ms(budget_ms, now_s=record.started_s)
        record.deadline = deadline
        found = await read_input(
            request.inputs, request.parameters, named=named, repository=self.repository
        )
        if found.model is not model:
            record.model = self.statistics.of(found.model.name, found.model.version)
        return found, deadline

    def metadata(self, *, name: str, version: str) -> dict[str, Any]:
        """The fields of ModelMetadataResponse.

        What any client of the protocol needs; frames and pictures are for who knows us.
        """
        model = self.repository.model(name, version)
        contract, classes = model.whole.contract, model.bundle.manifest.classes
        own = (
            TensorSpec(oip.PIXELS, contract.dtype, contract.shape),
            TensorSpec(oip.PROBABILITIES, "FP32", (classes,)),
        )
        return {
            "name": model.name,
            "versions": [other.version for other in self.repository.versions(name)],
            "platform": _PLATFORMS[model.runtime],
            "inputs": [_described(spec) for spec in (own[0], *model.whole.inputs)],
            "outputs": [_described(spec) for spec in (own[1], *model.whole.outputs)],
        }

    def _response(
        self, request_id: str, found: Input, answer: Answer, *, wanted: Iterable[str]
    ) -> oip.InferResponse:
        return oip.InferResponse(
            model_name=found.model.name,
            model_version=found.model.version,
            id=request_id,
            parameters={
                oip.QUEUE_MS: answer.queue_ms,
                oip.COMPUTE_MS: answer.compute_ms,
                oip.FORECAST_MS: self.worker.forecast_ms(),
                oip.CONTRACT: found.stage.contract.id,
            },
            outputs={
                oip.PROBABILITIES: answer.probabilities,
                **{name: answer.outputs[name] for name in wanted},
            },
        )


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": [-1, *spec.shape]}

"""One inference in the cloud: from a request to its answer, without the transport."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from ..shared import oip
from ..shared.deadline import MAX_BUDGET_MS, Clock, Deadline, monotonic
from ..shared.errors import DeadlineRefused, DeadlineUnmet, HybridgeError, RequestError
from .growth import Sight
from .inputs import Input, read_input
from .loader import Loader
from .memory import resident_bytes
from .model import Model, Told
from .passage import Passages
from .repository import Repository
from .shared_memory import SharedMemory
from .statistics import Record, Statistics
from .upload import Upload
from .work import Answer
from .worker import Worker

_WAY_OUT_MS, _WAY_OUT_MOST = 2.0, 0.1
"""What gRPC takes to send an answer and to read it, and the share of a budget kept for the way."""


class Inference:
    """Answers requests about the models of a repository."""

    def __init__(
        self,
        repository: Repository,
        *,
        worker: Worker,
        loader: Loader,
        statistics: Statistics,
        shared_memory: SharedMemory | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self.repository = repository
        self.worker = worker
        self.statistics = statistics
        self.shared_memory = shared_memory or SharedMemory(allowed=False)
        self._passages = Passages()
        self.loader = loader
        self._clock = clock

    async def start(self) -> None:
        """Takes work for what is loaded now; the rest is loaded in the background, or when called.

        In the background only where nothing limits what is in memory.
        """
        for model in self.repository:
            self.serve(model)
        if not self.loader.residence.limits.any:
            for model in self.repository:
                with await self.loader.ready(model.whole, deadline=None):
                    pass

    def serve(self, model: Model) -> None:
        """Takes work for a model of the repository."""
        self.statistics.add(model.name, model.version)
        self.loader.add(model.stages)
        if not self.loader.residence.limits.any:
            self.loader.start(model.stages)

    async def begin(self, model: Model) -> None:
        """The same, once its whole is loaded; raises what that raises, and serves it not then."""
        self.serve(model)
        try:
            with await self.loader.ready(model.whole, deadline=None):
                pass
        except HybridgeError:
            await self.loader.forget(model.stages)
            raise

    async def retire(self, model: Model) -> None:
        """Ends a model that is in the repository no more; returns once its requests have ended."""
        await self._passages.cleared(model.name)
        await self.loader.forget(model.stages)

    async def infer(
        self,
        request: oip.InferRequest,
        *,
        transport_left_s: float | None = None,
        arrived_s: float | None = None,
        upload: Upload | None = None,
    ) -> oip.InferResponse:
        """The answer to a request, or one of the faults of shared/errors.

        `transport_left_s` is the time after which the transport itself ends the call, if it does;
        `arrived_s` is when its budget began to run, if not now. With `upload` its frame is in
        layers: it is waited for as long as the deadline allows, and answered from what has come.
        """
        with self.statistics.request(arrived_s) as record:
            model = self.repository.model(request.model_name, request.model_version)
            with self._passages.through(model.name):
                return await self._infer(request, model, record, transport_left_s, upload)

    async def _infer(
        self,
        request: oip.InferRequest,
        model: Model,
        record: Record,
        transport_left_s: float | None,
        upload: Upload | None,
    ) -> oip.InferResponse:
        found, deadline, last = await self._read(request, model, record, transport_left_s, upload)
        rank = found.model.priorities.rank(request.parameters)
        wanted = found.model.wanted(request.outputs)
        with await self.loader.ready(found.stage, deadline=last, items=found.items, rank=rank):
            try:
                found = await self._gathered(found, request.parameters, deadline, rank)
                answer = await self._computed(found, deadline, rank)
            except (DeadlineRefused, DeadlineUnmet):
                if last is deadline:
                    raise
                found = await self._gathered(found, request.parameters, last, rank)
                answer = await self._computed(found, last, rank)
        response = self._response(request.id, found, answer, wanted=wanted)
        response = self.shared_memory.place(response, request.outputs)
        record.answered(answer, items=found.items, now_s=self._clock())
        return response

    async def _gathered(
        self, found: Input, parameters: Mapping[str, oip.Value], deadline: Deadline, rank: int
    ) -> Input:
        """The same with what has come of a frame in layers by when it has to be computed."""
        if found.upload is None:
            return found
        way_back_ms = max(oip.number(parameters, oip.WAY_BACK_MS) or 0.0, 0.0)

        def wait_ms() -> float:
            needs_ms = self.worker.needs_ms(found.stage, items=found.items, rank=rank)
            return deadline.left_ms(self._clock()) - needs_ms - way_back_ms

        least = _least_layers(parameters, in_all=len(found.upload.header.layers))
        return found.of(await found.upload.gathered(least=least, wait_ms=wait_ms))

    async def _computed(self, found: Input, deadline: Deadline, rank: int) -> Answer:
        return await self.worker.run(
            found.stage,
            load=found.load,
            at_hand=found.at_hand,
            items=found.items,
            sides=found.sides,
            deadline=deadline,
            rank=rank,
        )

    def sight(self) -> Sight:
        """What memory this process and its workers take now, and what has run in it."""
        staff, sizes = self.worker.executor.staff, {0: resident_bytes()}
        for process in staff.processes.values() if staff else ():
            with suppress(OSError):  # it has just ended
                sizes[process] = resident_bytes(process)
        return Sight(
            resident_bytes=sum(sizes.values()),
            runs={
                f"{name}/{version}": sum(batch.count for batch in figures.batches.values())
                for name, version, figures in self.statistics
            },
            holding=(tuple(sizes), tuple(self.loader.residence.resident())),
        )

    @contextmanager
    def reading(self, name: str, version: str) -> Iterator[None]:
        """Counts, for the model it was meant for, what turns out to be no request."""
        started_s = self._clock()
        try:
            yield
        except HybridgeError as error:
            version = version or next((m.version for m in self.repository if m.name == name), "")
            figures = self.statistics.of(name, version)
            record = Record(self.statistics, started_s=started_s)
            record.model = figures
            record.failed(error, now_s=self._clock())
            raise

    async def _read(
        self,
        request: oip.InferRequest,
        model: Model,
        record: Record,
        transport_left_s: float | None,
        upload: Upload | None,
    ) -> tuple[Input, Deadline, Deadline]:
        """What is asked, when it is due, and until when an answer is wanted at all."""
        record.model = self.statistics.of(model.name, model.version)
        budget_ms = oip.requested_budget_ms(
            request.parameters,
            rpc_left_s=transport_left_s,
            default_ms=model.default_budget_ms,
        )
        if transport_left_s is not None and transport_left_s <= 0:
            raise DeadlineRefused("it passed on the way here")
        told_ms = math.inf if transport_left_s is None else transport_left_s * 1e3
        grain_ms = 0.0 if budget_ms < told_ms else oip.timeout_grain_ms(told_ms / 1e3)
        # To the loop was one step, out of it and into the client are two more.
        way_out_ms = 2 * self.worker.handover_ms + _WAY_OUT_MS
        budget_ms -= min(_WAY_OUT_MOST * budget_ms, way_out_ms)
        deadline = Deadline.after_ms(budget_ms, now_s=record.started_s, grain_ms=grain_ms)
        record.deadline = last = deadline
        if transport_left_s is not None and oip.flag(request.parameters, oip.FOLLOW):
            left_ms = min(transport_left_s * 1e3, MAX_BUDGET_MS)
            record.deadline = last = Deadline.after_ms(left_ms, now_s=record.started_s)
        found = await read_input(
            self.shared_memory.fetch(request.inputs),
            request.parameters,
            model=model,
            version=request.model_version,
            repository=self.repository,
            upload=upload,
        )
        if found.model is not model:
            record.model = self.statistics.of(found.model.name, found.model.version)
        return found, deadline, last

    def metadata(self, *, name: str, version: str) -> dict[str, Any]:
        """The fields of ModelMetadataResponse.

        What any client of the protocol needs; frames and pictures are for who knows us.
        """
        model = self.repository.model(name, version)
        return {
            "name": model.name,
            "versions": [other.version for other in self.repository.versions(name)],
            "platform": model.platform,
            "inputs": [_described(spec) for spec in model.takes],
            "outputs": [_described(spec) for spec in model.gives],
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
                **(found.came.parameters() if found.came else {}),
            },
            outputs=found.model.answered(answer, wanted=wanted),
        )


def _least_layers(parameters: Mapping[str, oip.Value], *, in_all: int) -> int:
    """How many layers an answer needs; RequestError for what the frame does not have."""
    least = oip.number(parameters, oip.MIN_LAYERS)
    if least is None:
        return 1
    if not 1 <= least <= in_all:
        raise RequestError(f"parameter {oip.MIN_LAYERS} is {least:g}; the frame has {in_all}")
    return math.ceil(least)


def _described(tensor: Told) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}

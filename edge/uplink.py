"""The way to the cloud: frames up, answers down, and what each exchange teaches."""

import asyncio
import contextlib
import logging
import os
from dataclasses import dataclass, field
from typing import cast

import grpc
import numpy as np

from ..protos import fleet_pb2, fleet_pb2_grpc, oip
from ..protos import open_inference_pb2 as pb
from ..shared import oip as messages
from ..shared.answer import Probabilities
from ..shared.deadline import Clock
from ..shared.errors import RemoteError, RemoteRefused, RemoteTooLate, RequestError, from_rpc
from ..shared.manifest import Precision
from ..shared.security import Address, Security
from ..shared.side import Tensors
from .breaker import Breaker
from .link import LinkEstimate

log = logging.getLogger(__name__)

_PROBE_BYTES = 24_000
_PROBE_TIMEOUT_S = 2.0
_PROBE_EVERY_S = 1.0
_IDLE_S = 2.0
"""A link that carried something within this time needs no probe."""
_PRECISIONS = frozenset(map(str, Precision))
_OVERHEAD_BYTES = 400
"""HTTP/2 framing and the request's own fields around a frame, roughly."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What goes with a frame: the model's further inputs, and which of its outputs are wanted.

    `outputs` is None where the model has none but its answer; `named` says that the request asked
    for them by name, and is not content with an answer that lacks them.
    """

    inputs: Tensors = field(default_factory=dict)
    outputs: tuple[str, ...] | None = None
    named: bool = False

    @property
    def wanted(self) -> tuple[str, ...]:
        return self.outputs or ()

    @property
    def size_bytes(self) -> int:
        return sum(array.nbytes for array in self.inputs.values())


NOTHING = Beside()


@dataclass(frozen=True, slots=True)
class CloudAnswer:
    """What came back, and where the time went."""

    probabilities: Probabilities
    queue_ms: float
    compute_ms: float
    forecast_ms: float
    network_ms: float
    outputs: Tensors = field(default_factory=dict)


class CloudTimes:
    """What the cloud says about itself: times and precision per contract, and its queue."""

    def __init__(self) -> None:
        self._compute_ms: dict[str, float] = {}
        self._precision: dict[str, Precision] = {}
        self.queue_ms = 0.0

    def learn(self, state: fleet_pb2.ProbeResponse) -> None:
        self._compute_ms = {tail.contract: tail.compute_p95_ms for tail in state.tails}
        self._precision = {
            tail.contract: Precision(tail.precision)
            for tail in state.tails
            if tail.precision in _PRECISIONS
        }
        self.queue_ms = state.queue_forecast_ms

    def forecast_ms(self, contract: str) -> float:
        """Waiting and computing; a tail never measured costs as much as the slowest stage known."""
        slowest = max(self._compute_ms.values(), default=float("inf"))
        return self.queue_ms + self._compute_ms.get(contract, slowest)

    def precision(self, contract: str) -> Precision:
        """What a tail computes in; a tail still to be loaded will be as the others are."""
        others = next(iter(self._precision.values()), Precision.FLOAT32)
        return self._precision.get(contract, others)


class Uplink:
    """One channel to one cloud, watched: it knows the link, the cloud's times and the breaker."""

    def __init__(self, address: Address, *, security: Security, model: str, clock: Clock) -> None:
        self.address = address
        self.link = LinkEstimate()
        self.cloud = CloudTimes()
        self.breaker = Breaker(opened_at_s=clock())
        self._security = security
        self._model = model
        self._clock = clock
        self._last_used_s = float("-inf")
        self._monitor: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Opens the channel and measures the link in the background; a dead cloud is no error."""
        self._channel = self._security.channel(self.address)
        self._stub = oip.Stub(self._channel)
        self._fleet = fleet_pb2_grpc.FleetStub(self._channel)
        self._monitor = asyncio.create_task(self._watch(), name="uplink-monitor")

    async def shutdown(self) -> None:
        if self._monitor is not None:
            self._monitor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._monitor
        await self._channel.close()

    async def infer(
        self,
        frame: bytes,
        *,
        version: str,
        parameters: dict[str, messages.Value],
        left_ms: float,
        beside: Beside = NOTHING,
    ) -> CloudAnswer:
        """Sends one frame and waits for its answer; RemoteError if none comes in the time left."""
        request = pb.ModelInferRequest(model_name=self._model, model_version=version)
        request.inputs.add(name="frame", datatype="UINT8", shape=[len(frame)])
        request.raw_input_contents.append(frame)
        for name, array in beside.inputs.items():
            messages.add_input(request, name, array)
        if beside.outputs is not None:
            for name in (messages.PROBABILITIES, *beside.outputs):
                request.outputs.add(name=name)
        messages.set_parameters(
            request.parameters, {**parameters, messages.LATENCY_BUDGET_MS: left_ms}
        )
        size_bytes = len(frame) + beside.size_bytes + _OVERHEAD_BYTES
        start_s = self._last_used_s = self._clock()
        try:
            response = await self._stub.ModelInfer(request, timeout=left_ms / 1e3)
        except grpc.aio.AioRpcError as error:
            fault = from_rpc(error)
            self._learn_from(fault, size_bytes, start_s)
            raise fault from error
        except asyncio.CancelledError:
            self.link.observe_timeout(
                size_bytes, (self._clock() - start_s) * 1e3, now_s=self._clock()
            )
            raise
        total_ms = (self._clock() - start_s) * 1e3
        answer = _read_answer(response, total_ms=total_ms, wanted=beside.wanted)
        self.cloud.queue_ms = answer.forecast_ms
        self.link.observe(size_bytes, answer.network_ms, now_s=self._clock())
        self.breaker.succeed()
        return answer

    async def probe(self, payload_bytes: int) -> None:
        """One measured exchange with the Fleet service; RemoteError if it fails."""
        request = fleet_pb2.ProbeRequest(payload=os.urandom(payload_bytes), model_name=self._model)
        start_s = self._last_used_s = self._clock()
        try:
            state = await self._fleet.Probe(request, timeout=_PROBE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            fault = from_rpc(error)
            self._learn_from(fault, payload_bytes, start_s)
            raise fault from error
        now_s = self._clock()
        self.link.observe(payload_bytes, (now_s - start_s) * 1e3, now_s=now_s)
        self.cloud.learn(state)
        self.breaker.succeed()

    def _learn_from(self, fault: RemoteError, size_bytes: int, start_s: float) -> None:
        now_s = self._clock()
        if isinstance(fault, RemoteTooLate):
            self.link.observe_timeout(size_bytes, (now_s - start_s) * 1e3, now_s=now_s)
        elif not isinstance(fault, RemoteRefused):
            if self.breaker.closed:
                log.warning("cloud %s is out of reach: %s", self.address, fault)
            self.breaker.fail(str(fault), now_s=now_s)

    async def _watch(self) -> None:
        """Probes while the breaker is open or the link has been idle, as long as the agent runs."""
        while True:
            idle_s = self._clock() - self._last_used_s
            was_open = not self.breaker.closed
            if was_open or idle_s >= _IDLE_S:
                try:
                    await self.probe(0)
                    await self.probe(_PROBE_BYTES)
                except RemoteError as error:
                    log.debug("probe of %s failed: %s", self.address, error)
                else:
                    if was_open:
                        log.info("cloud %s is within reach", self.address)
            await asyncio.sleep(_PROBE_EVERY_S)  # the interval itself, not a wait for something


def _read_answer(
    response: pb.ModelInferResponse, *, total_ms: float, wanted: tuple[str, ...]
) -> CloudAnswer:
    try:
        probabilities = messages.output_array(response, messages.PROBABILITIES)[0]
        outputs = {name: messages.output_array(response, name) for name in wanted}
        parameters = messages.get_parameters(response.parameters)
        queue_ms = messages.number(parameters, messages.QUEUE_MS) or 0.0
        compute_ms = messages.number(parameters, messages.COMPUTE_MS) or 0.0
        forecast_ms = messages.number(parameters, messages.FORECAST_MS) or 0.0
    except (RequestError, IndexError) as error:
        raise RemoteRefused(f"its answer cannot be read ({error})") from error
    return CloudAnswer(
        probabilities=cast(Probabilities, probabilities.astype(np.float32)),
        queue_ms=queue_ms,
        compute_ms=compute_ms,
        forecast_ms=forecast_ms,
        network_ms=max(total_ms - queue_ms - compute_ms, 0.0),
        outputs=outputs,
    )

"""What an agent costs beside the stages that it runs: processor time, all threads together.

A batch of requests through `Agent.answer`, in this process and on raw pixels, is compared with a
batch of the bare stages that they ran (resize, light model or head, encode), called one after the
other. Both read the same clock, the processor time of this process, and take turns. The cloud of a
split answer is a connection that answers at once, so that no gRPC is in it. With the service around
it, the same from a request's message to its response's: what gRPC does is left out here as well.

What was loaded is kept out of garbage collection, as in the daemon.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from hybridge.devices.models import DeviceModels, Pixels
from hybridge.edge.agent import Agent
from hybridge.edge.bench import DeviceBench
from hybridge.edge.demand import Demand
from hybridge.edge.monitor import Monitor
from hybridge.edge.policy import RouterPolicy
from hybridge.edge.question import Question, Sight
from hybridge.edge.results import ResultLog
from hybridge.edge.router import Decision, Light, Option, choose
from hybridge.edge.service import EdgeService
from hybridge.edge.stage_times import StageTimes
from hybridge.edge.uplink import Uplink
from hybridge.protos import fleet_pb2, oip
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip as messages
from hybridge.shared.came import Came
from hybridge.shared.codec import codec_by_name
from hybridge.shared.deadline import Deadline, monotonic
from hybridge.shared.frame import encode_frame, read_layers_header
from hybridge.shared.manifest import Manifest
from hybridge.shared.plan import Plan, PlanKind

LOCAL_CPU, SPLIT_CPU = "local answer", "split answer"
SERVED_CPU = "local answer, its service around it"
BATCH = 10
_LONG_MS = 10_000.0


class InstantCloud:
    """A connection to a cloud that needs no time, and no network."""

    def __init__(self, manifest: Manifest) -> None:
        self._response = pb.ModelInferResponse(model_name=manifest.name)
        answer = np.eye(1, manifest.classes, dtype=np.float32)
        messages.add_output(self._response, messages.PROBABILITIES, answer)
        times = {messages.QUEUE_MS: 0.0, messages.COMPUTE_MS: 0.1, messages.FORECAST_MS: 0.0}
        messages.set_parameters(self._response.parameters, times)
        self._state = fleet_pb2.ProbeResponse()
        for contract in (manifest.large.pixels, *(cut.contract for cut in manifest.large.cuts)):
            self._state.tails.add(contract=contract.id, compute_p50_ms=0.1, compute_p95_ms=0.1)

    async def infer(
        self, request: pb.ModelInferRequest, *, timeout_s: float
    ) -> pb.ModelInferResponse:
        return self._response

    async def infer_in_pieces(
        self, requests: Sequence[pb.ModelInferRequest], *, timeout_s: float
    ) -> pb.ModelInferResponse:
        """From all there is: it takes no time to come."""
        frame = b"".join(request.raw_input_contents[0] for request in requests)
        layers = len(read_layers_header(frame).layers)
        response = pb.ModelInferResponse()
        response.CopyFrom(self._response)
        came = Came(layers, layers, len(frame), len(frame))
        messages.set_parameters(response.parameters, came.parameters())
        return response

    async def probe(self, payload_bytes: int, *, timeout_s: float) -> fleet_pb2.ProbeResponse:
        return self._state

    async def close(self, *, grace_s: float | None = None) -> None:
        pass


@dataclass(frozen=True)
class Insisting(RouterPolicy):
    """Asks the router, takes the plan at one place whatever it says, and waits for its answer."""

    at: int

    def choose(self, options: Sequence[Option], question: Question) -> Decision:
        choose(options, question)
        return Decision(options[self.at], 1.0, Light.NET)

    @staticmethod
    def worth_waiting(
        running: Option, local: Option, *, in_time: float, demand: Demand, sight: Sight
    ) -> bool:
        return True


@dataclass
class AgentCpu:
    """An agent at work, the bare stages of its answers, and what both took per request, in ms."""

    agent: Agent
    models: DeviceModels
    pixels: Pixels
    plan: Plan
    budget_ms: float = _LONG_MS
    with_agent_ms: list[float] = field(default_factory=list)
    bare_ms: list[float] = field(default_factory=list)

    async def answers(self) -> None:
        """One batch through the agent."""
        start_ns = time.process_time_ns()
        for _ in range(BATCH):
            await self._ask()
        self.with_agent_ms.append((time.process_time_ns() - start_ns) / 1e6 / BATCH)

    def stages(self) -> None:
        """One batch of what these answers ran."""
        run = self._light if self.plan.kind is PlanKind.LOCAL else self._frame
        start_ns = time.process_time_ns()
        for _ in range(BATCH):
            run()
        self.bare_ms.append((time.process_time_ns() - start_ns) / 1e6 / BATCH)

    def own_ms(self) -> list[float]:
        """What is the agent's own, round by round."""
        pairs = zip(self.with_agent_ms, self.bare_ms, strict=True)
        return [whole - bare for whole, bare in pairs]

    def clear(self) -> None:
        self.with_agent_ms.clear()
        self.bare_ms.clear()

    async def _ask(self) -> None:
        deadline = Deadline.after_ms(self.budget_ms, now_s=monotonic())
        answer = await self.agent.answer(self.pixels, deadline)
        self._check(answer.plan, answer.fallback)

    def _check(self, plan: Plan, fallback: str) -> None:
        if plan != self.plan or fallback:
            raise RuntimeError(f"{plan} answered, not {self.plan}: {fallback}")

    def _light(self) -> None:
        self.models.light(self.models.resize_light(self.pixels))

    def _frame(self) -> None:
        contract = self.models.bundle.manifest.contract(self.plan)
        tensor = self.models.tensor(self.plan, self.models.resize_large(self.pixels))
        encode_frame(tensor, contract=contract, codec=codec_by_name(self.plan.codec, contract))


class NoCall:
    """The context of a call that did not come over gRPC: whatever is sent has left at once."""

    def time_remaining(self) -> None:
        return None

    def add_done_callback(self, callback: Callable[["NoCall"], None]) -> None:
        callback(self)


@dataclass
class ServiceCpu(AgentCpu):
    """The same with the edge's service around it."""

    def __post_init__(self) -> None:
        bundle, now_s = self.models.bundle, monotonic()
        self._service = EdgeService(
            self.agent, bundle, results=ResultLog(), monitor=Monitor(now_s), clock=monotonic
        )
        self._request = pb.ModelInferRequest(model_name=bundle.manifest.name, id="0")
        messages.add_input(self._request, messages.PIXELS, self.pixels)
        budget = {messages.LATENCY_BUDGET_MS: self.budget_ms}
        messages.set_parameters(self._request.parameters, budget)

    async def _ask(self) -> None:
        response = await self._service.ModelInfer(self._request, cast(oip.Context, NoCall()))
        said = messages.get_parameters(response.parameters)
        self._check(Plan.parse(str(said[messages.PLAN])), str(said["fallback"]))


def cheapest_split(manifest: Manifest) -> Plan:
    """Of the cuts, the one that sends least."""
    rows = [row for row in manifest.table if row.parsed().kind is PlanKind.SPLIT]
    return min(rows, key=lambda row: row.bytes_p95).parsed()


def insisting_on(plan: Plan, agent: Agent) -> Insisting:
    """The policy for a plan; it stays at its place as long as the cloud's precision is the same."""
    options = agent.options(Deadline.after_ms(_LONG_MS, now_s=monotonic()))
    return Insisting([option.plan for option in options].index(plan))


async def split_agent(
    models: DeviceModels, times: StageTimes, pixels: Pixels
) -> tuple[AgentCpu, Uplink]:
    """An agent that splits every request, and the uplink to be shut down after."""
    manifest = models.bundle.manifest
    uplink = Uplink(lambda: InstantCloud(manifest), clock=monotonic, name="instant")
    await uplink.startup()
    await uplink.probe(0)
    plan = cheapest_split(manifest)
    agent = Agent(
        models.bundle,
        bench=DeviceBench(models, clock=monotonic, workers=2),
        times=times,
        uplink=uplink,
        clock=monotonic,
    )
    agent.policy = insisting_on(plan, agent)
    return AgentCpu(agent, models, pixels, plan), uplink

"""One request, from picture to answer, by its deadline.

The agent knows no transport: the service hands it a picture and a deadline, the uplink takes its
frames. Its promise is the net: the light model starts no later than deadline - its p99.9, so that
an answer of the device's own is there whatever the cloud does.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from ..devices.models import (
    LIGHT,
    RESIZE_LARGE,
    RESIZE_LIGHT,
    DeviceModels,
    check_picture,
    encode_stage,
    head_stage,
)
from ..shared import oip as messages
from ..shared.answer import Probabilities
from ..shared.codec import codec_by_name
from ..shared.deadline import Clock, Deadline
from ..shared.errors import HybridgeError, Overloaded, RemoteError, RemoteRefused, RemoteTooLate
from ..shared.frame import encode_frame
from ..shared.picture import MAX_PIXELS, decode_picture
from ..shared.plan import Plan, PlanKind
from ..shared.side import Tensors
from ..shared.tensor import Array, TensorSpec
from .outlook import in_float32, outlook
from .router import Option, choose, explain
from .stage_times import StageTimes
from .uplink import NOTHING, Beside, CloudAnswer, Uplink

log = logging.getLogger(__name__)

T = TypeVar("T")

RESERVE_MS = 5.0
RESERVE_SHARE = 0.05
_MOST_RESERVE_MS = 20.0
"""Kept back of every budget for the event loop and for writing the answer: a long one can spare
more, and a busy machine is then forgiven more."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, who gave it, and where the time went.

    `provisional`: the deadline came before the cloud's answer. `fallback`: why the device answered
    although another plan had been taken, or would have been with a cloud in reach; else empty.
    `outputs` are the model's further ones, `missing` those that were wanted and that the device
    cannot make.
    """

    probabilities: Probabilities
    plan: Plan
    provisional: bool
    fallback: str
    sent_bytes: int
    steps_ms: dict[str, float]
    total_ms: float
    budget_ms: float
    outputs: Tensors = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def confidence(self) -> float:
        return float(self.probabilities.max())

    @property
    def within_budget(self) -> bool:
        return self.total_ms <= self.budget_ms


@dataclass(slots=True)
class _Request:
    """A request under way. Touched on the event loop only."""

    deadline: Deadline
    picture: Array
    beside: Beside = NOTHING
    steps_ms: dict[str, float] = field(default_factory=dict)
    sent_bytes: int = 0


def reserve_ms(deadline: Deadline) -> float:
    """What of a budget is kept back."""
    return max(RESERVE_MS, min(RESERVE_SHARE * deadline.budget_ms, _MOST_RESERVE_MS))


class _Stopwatch:
    """Times the stages of one job in a pool thread; the loop reads it when the job is done."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.stages_ms: dict[str, float] = {}

    def time(self, stage: str, work: Callable[[], T]) -> T:
        start_s = self._clock()
        result = work()
        self.stages_ms[stage] = (self._clock() - start_s) * 1e3
        return result


class Agent:
    """Answers pictures with one bundle, alone or with a cloud (`uplink` None: alone).

    The light model has a thread of its own, so that nothing can stand before the net.
    """

    def __init__(
        self,
        models: DeviceModels,
        *,
        times: StageTimes,
        uplink: Uplink | None,
        clock: Clock,
        workers: int,
        max_requests: int = 64,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.bundle = models.bundle
        self.manifest = models.bundle.manifest
        self.times = times
        self.uplink = uplink
        self._models = models
        self._clock = clock
        self._pool = ThreadPoolExecutor(workers, "agent")
        self._light_pool = ThreadPoolExecutor(1, "light")
        self._max_requests = max_requests
        self._max_pixels = max_pixels
        self._under_way = 0
        self._light_waiting = 0

    def close(self) -> None:
        """Lets running stages end; nothing new is taken."""
        self._pool.shutdown(cancel_futures=True)
        self._light_pool.shutdown(cancel_futures=True)

    async def answer(
        self, picture: bytes | Array, deadline: Deadline, beside: Beside = NOTHING
    ) -> Answer:
        """The best answer the deadline allows, for an encoded picture or RGB uint8 [h, w, 3].

        `beside` goes to the cloud as it is; the light model sees the picture alone. Outputs that
        are wanted by name make the cloud's plans the only ones, as long as one of them fits.
        Raises PictureError or TensorError for what is no picture, Overloaded if too many requests
        are under way. A cloud that fails raises nothing: the device answers.
        """
        if self._under_way >= self._max_requests:
            raise Overloaded(f"{self._under_way} requests are under way, no more are taken")
        self._under_way += 1
        try:
            request = await self._admit(picture, deadline)
            request.beside = beside
            left_ms = deadline.left_ms(self._clock()) - reserve_ms(deadline)
            options = self.options()
            if beside.named:
                options = _from_cloud(options, left_ms=left_ms)
            option = choose(options, left_ms=left_ms).option
            if log.isEnabledFor(logging.DEBUG):
                log.debug("%.0f ms left: %s", left_ms, explain(options, left_ms=left_ms))
            if option.plan.kind is not PlanKind.LOCAL:
                return await self._remote(request, option)
            reachable = self.uplink is None or self.uplink.breaker.closed
            return await self._local(request, fallback="" if reachable else "cloud out of reach")
        finally:
            self._under_way -= 1

    def options(self) -> list[Option]:
        """Every plan as the agent sees it now."""
        uplink, now_s = self.uplink, self._clock()
        return outlook(
            self.manifest,
            stage_ms=self.times.p95_ms,
            transfer_ms=lambda size: (
                uplink.link.forecast_ms(size, now_s=now_s) if uplink else float("inf")
            ),
            cloud_ms=uplink.cloud.forecast_ms if uplink else lambda _: float("inf"),
            cloud_precision=uplink.cloud.precision if uplink else in_float32,
            reachable=uplink is not None and uplink.breaker.closed,
        )

    async def _admit(self, picture: bytes | Array, deadline: Deadline) -> _Request:
        if not isinstance(picture, bytes):
            check_picture(picture)
            return _Request(deadline, picture)
        start_s = self._clock()
        pixels = await asyncio.get_running_loop().run_in_executor(
            self._pool, lambda: decode_picture(picture, max_pixels=self._max_pixels)
        )
        request = _Request(deadline, pixels)
        request.steps_ms["decode"] = (self._clock() - start_s) * 1e3
        return request

    async def _local(self, request: _Request, *, fallback: str = "") -> Answer:
        return self._finish(request, await self._light(request), Plan.local(), fallback=fallback)

    async def _remote(self, request: _Request, option: Option) -> Answer:
        """Runs a remote plan over the net of the light model: the first good answer wins."""
        remote = asyncio.create_task(self._through_cloud(request, option.plan))
        local: asyncio.Task[Probabilities] | None = None
        try:
            await self._wait(remote, request.deadline, keep_ms=self._light_needs_ms(request))
            if not remote.done():
                local = asyncio.create_task(self._light(request))
                await self._wait(remote, request.deadline, keep_ms=reserve_ms(request.deadline))
                # Past the deadline whatever comes first is the least late.
                await asyncio.wait((remote, local), return_when=asyncio.FIRST_COMPLETED)
            fault = _fault(remote)
            if remote.done() and fault is None:
                return self._finish_remote(request, remote.result(), option.plan)
            probabilities = await (local or self._light(request))
            late = not remote.done() or isinstance(fault, RemoteTooLate)
            who = "cloud" if isinstance(fault, RemoteError) else "device"
            reason = "cloud late" if late else f"{who} failed: {fault}"
            return self._finish(
                request, probabilities, Plan.local(), provisional=late, fallback=reason
            )
        finally:
            remote.cancel()
            if local is not None:
                local.cancel()

    async def _wait(
        self, task: "asyncio.Task[CloudAnswer]", deadline: Deadline, *, keep_ms: float
    ) -> None:
        """Waits for a task as long as more than `keep_ms` are left; never raises what it raised."""
        wait_ms = deadline.left_ms(self._clock()) - keep_ms
        if wait_ms > 0:
            await asyncio.wait((task,), timeout=wait_ms / 1e3)

    async def _through_cloud(self, request: _Request, plan: Plan) -> CloudAnswer:
        uplink = self.uplink
        assert uplink is not None, "a remote plan is only chosen with a cloud in reach"
        watch = _Stopwatch(self._clock)
        frame = await asyncio.get_running_loop().run_in_executor(
            self._pool, self._make_frame, request.picture, plan, watch
        )
        self._learn(request, watch)
        left_ms = request.deadline.left_ms(self._clock()) - reserve_ms(request.deadline)
        if left_ms <= 0:
            raise RemoteTooLate("the device's share took all the time there was")
        request.sent_bytes = len(frame) + request.beside.size_bytes
        parameters: dict[str, messages.Value] = {
            messages.CONTRACT: self.manifest.contract(plan).id,
            messages.CODEC: plan.codec,
        }
        if plan.cut:
            parameters[messages.CUT] = plan.cut
        answer = await uplink.infer(
            frame,
            version=self.manifest.version,
            parameters=parameters,
            left_ms=left_ms,
            beside=request.beside,
        )
        _check_answer(answer, classes=self.manifest.classes, specs=self.manifest.large.outputs)
        return answer

    async def _light(self, request: _Request) -> Probabilities:
        watch = _Stopwatch(self._clock)
        self._light_waiting += 1
        try:
            probabilities = await asyncio.get_running_loop().run_in_executor(
                self._light_pool, self._run_light, request.picture, watch
            )
        finally:
            self._light_waiting -= 1
        self._learn(request, watch)
        return probabilities

    def _light_needs_ms(self, request: _Request) -> float:
        """How long before its deadline the light model has to start, those before it included.

        One usual run is added to its p99.9: a run after a wait finds cold caches and a sleeping
        thread, which no profile measured in a loop has seen.
        """
        careful_ms = self.times.p999_ms(RESIZE_LIGHT) + self.times.p999_ms(LIGHT)
        usual_ms = self.times.p95_ms(RESIZE_LIGHT) + self.times.p95_ms(LIGHT)
        return careful_ms + (1 + self._light_waiting) * usual_ms + reserve_ms(request.deadline)

    def _run_light(self, picture: Array, watch: _Stopwatch) -> Probabilities:
        pixels = watch.time(RESIZE_LIGHT, lambda: self._models.resize_light(picture))
        return watch.time(LIGHT, lambda: self._models.light(pixels))

    def _make_frame(self, picture: Array, plan: Plan, watch: _Stopwatch) -> bytes:
        pixels = watch.time(RESIZE_LARGE, lambda: self._models.resize_large(picture))
        tensor: Array = pixels
        if plan.kind is PlanKind.SPLIT:
            head = head_stage(plan.cut, plan.head)
            tensor = watch.time(head, lambda: self._models.tensor(plan, pixels))
        contract = self.manifest.contract(plan)
        codec = codec_by_name(plan.codec, contract)
        return watch.time(
            encode_stage(plan), lambda: encode_frame(tensor, contract=contract, codec=codec)
        )

    def _learn(self, request: _Request, watch: _Stopwatch) -> None:
        for stage, ms in watch.stages_ms.items():
            self.times.observe(stage, ms)
            request.steps_ms[stage.partition(":")[0]] = ms

    def _finish_remote(self, request: _Request, answer: CloudAnswer, plan: Plan) -> Answer:
        request.steps_ms["network"] = answer.network_ms
        request.steps_ms["cloud_queue"] = answer.queue_ms
        request.steps_ms["cloud_compute"] = answer.compute_ms
        return self._finish(request, answer.probabilities, plan, outputs=answer.outputs)

    def _finish(
        self,
        request: _Request,
        probabilities: Probabilities,
        plan: Plan,
        *,
        provisional: bool = False,
        fallback: str = "",
        outputs: Tensors | None = None,
    ) -> Answer:
        return Answer(
            probabilities=probabilities,
            plan=plan,
            provisional=provisional,
            fallback=fallback,
            sent_bytes=request.sent_bytes,
            steps_ms=dict(request.steps_ms),
            total_ms=request.deadline.spent_ms(self._clock()),
            budget_ms=request.deadline.budget_ms,
            outputs=outputs or {},
            missing=request.beside.wanted if outputs is None else (),
        )


def _from_cloud(options: list[Option], *, left_ms: float) -> list[Option]:
    """The remote options that fit, if there are any."""
    remote = [
        option
        for option in options
        if option.plan.kind is not PlanKind.LOCAL and option.total_ms <= left_ms
    ]
    return remote or options


def _check_answer(answer: CloudAnswer, *, classes: int, specs: Sequence[TensorSpec]) -> None:
    """RemoteRefused unless this could be an answer: a cloud need not be one of ours."""
    probabilities = answer.probabilities
    if probabilities.shape != (classes,) or not np.isfinite(probabilities).all():
        raise RemoteRefused(f"its answer is not {classes} probabilities")
    for spec in specs:
        found = answer.outputs.get(spec.name)
        if found is not None and (found.shape != (1, *spec.shape) or found.dtype != spec.dtype):
            raise RemoteRefused(f"its output is {found.dtype} {list(found.shape)}, not {spec}")


def _fault(remote: "asyncio.Task[CloudAnswer]") -> HybridgeError | None:
    """Why the cloud gave no answer; what is not in the error tree is a defect and raised."""
    fault = remote.exception() if remote.done() else None
    if fault is not None and not isinstance(fault, HybridgeError):
        raise fault
    return fault

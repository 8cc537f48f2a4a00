"""One request under way, from its picture to its answer. Lives on the event loop.

Events drive it: the light model has answered, the cloud has, or has failed, the cloud is within
reach again, an answer is overdue, the last moment for the light model has come, the deadline has.
At each the policy may be asked again; the first answer that is good enough is given, and what still
runs is called off, in the cloud too.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from ..shared import oip as messages
from ..shared.came import Came
from ..shared.deadline import Deadline
from ..shared.errors import (
    HybridgeError,
    NotAllowed,
    RemoteError,
    RemoteTooLate,
    RemoteUnavailable,
)
from ..shared.plan import Plan, PlanKind
from ..shared.side import Tensors
from ..shared.tensor import Array
from .answer import Answer
from .bench import Lit
from .checks import check_answer
from .cloud_messages import Beside, CloudAnswer, InLayers
from .demand import Demand
from .ledger import Purpose
from .net import SAFE
from .question import Sight
from .router import UNLIKELY, Decision, Light, Option
from .sent import Sent

if TYPE_CHECKING:
    from .agent import Agent

T = TypeVar("T")

OnFinal = Callable[[Answer], None]

DECODE = "decode"
"""The stage that is in no profile: it depends on the picture."""
RESERVE_MS = 5.0
RESERVE_SHARE = 0.1
_MOST_RESERVE_SHARE = 0.3
_MOST_RESERVE_MS = 100.0
"""Kept back of every budget for the event loop and for writing the answer: a long one can spare
more, and a busy machine is then forgiven more."""
_OVERDUE = 2.0
"""Standard deviations after which an answer is overdue, and the policy is asked again."""
_PATIENCE = 1.5
"""How much longer than last time it then waits before it asks once more."""
_TICK_MS = 0.1
"""Added to every pause, so that what was waited for is due when it ends."""
_LATE, _NO_TIME = "cloud late", "no time for the cloud"
_FOR_WANT_OF_TIME = frozenset({_LATE, _NO_TIME})
_RETRY_WAIT_MS = 1_000.0
"""How long a request whose exchange broke waits at most for the cloud to be back."""


def reserve_ms(deadline: Deadline, *, lateness_ms: float) -> float:
    """What of a budget is kept back: more where the process was seen to be late by more."""
    usual_ms = max(RESERVE_MS, min(RESERVE_SHARE * deadline.budget_ms, _MOST_RESERVE_MS))
    return max(usual_ms, min(lateness_ms, _MOST_RESERVE_SHARE * deadline.budget_ms))


@dataclass(slots=True)
class Run:
    """Everything about one request."""

    agent: "Agent"
    deadline: Deadline
    beside: Beside
    demand: Demand
    on_final: OnFinal | None
    way_in_ms: float | None = None
    steps_ms: dict[str, float] = field(default_factory=dict)
    sent_bytes: int = 0
    picture: Array = field(init=False)
    _reserve_ms: float = field(init=False)
    _light_due_s: float = 0.0
    """As of the last event."""
    _sight: Sight | None = None
    _light: "asyncio.Future[Lit] | None" = None
    _waiting: "asyncio.Future[bool] | None" = None
    """Done as soon as something has happened: False if only time has passed."""
    _sent: Sent | None = None
    _back: "asyncio.Future[None] | None" = None
    """Waits for the cloud to be within reach again."""
    _fallback: str = ""
    _hopeless: bool = False
    """The answer under way will hardly come in time: as late as one that has not."""
    _large: bool = False
    """Whether its picture is much larger than those of others."""
    _first: bool = False
    """Whether it is before remote plans: its light model is running, or it may yet."""
    _retried: bool = False
    _alone: bool = False
    """There is no other plan than the device's own: none will come of asking again."""
    _asked: bool = False
    """Whether a remote plan was ever begun."""

    async def answer(self, picture: bytes | Array) -> Answer:
        """The best answer the deadline allows."""
        lateness = self.agent.lateness
        if self.way_in_ms is None:
            late_ms = lateness.reserve_ms
        else:
            lateness.arrived(self.way_in_ms)
            late_ms = lateness.after_ms
        self._reserve_ms = reserve_ms(self.deadline, lateness_ms=late_ms)
        self._goes_first(True)
        try:
            self.picture = await self._pixels(picture)
            self._large = self.agent.net.is_large(self.picture.size)
            decision = self._ask()
            self._alone = decision.alone
            # Where the last moment for the light model is now, nothing may run beside it.
            due_s = self._light_at_s(decision.in_time)
            if decision.light is Light.FIRST or self.agent.clock() >= due_s:
                self._start_light()
                if decision.option.plan.kind is PlanKind.LOCAL:
                    self._fallback = self.agent.unreachable
            else:
                self._goes_first(False)  # but for the net
                self._send(decision.option, beside=decision.light is Light.BESIDE)
            return await self._first_good()
        finally:
            self._goes_first(False)
            self._call_off()

    # Time and what it is compared with.

    @property
    def left_ms(self) -> float:
        """What may still be spent, the reserve taken off."""
        return self.deadline.left_ms(self.agent.clock()) - self._reserve_ms

    def _light_at_s(self, in_time: float) -> float:
        """When the light model has to start, if what is under way is in time with `in_time`."""
        waits_ms = self.agent.light_waits_ms(self.deadline)
        now_s = self.agent.clock()
        needs_ms = self.agent.net.needs_ms(
            now_s=now_s, in_time=0.0 if self._large else in_time, waits_ms=waits_ms
        )
        return self.deadline.at_s - (self._reserve_ms + needs_ms) / 1e3

    # Starting things.

    async def _pixels(self, picture: bytes | Array) -> Array:
        if not isinstance(picture, bytes):
            return picture
        start_s = self.agent.clock()
        pixels = await self.agent.bench.decode(picture, self.deadline)
        took_ms = (self.agent.clock() - start_s) * 1e3
        self.agent.times.observe(DECODE, took_ms)
        self.steps_ms[DECODE] = took_ms
        return pixels

    def _ask(self) -> Decision:
        return self.agent.decide(
            self.deadline,
            left_ms=self.left_ms,
            demand=self.demand,
            sight=self._sight,
            large=self._large,
        )

    def _goes_first(self, first: bool) -> None:
        self.agent.unlit += first - self._first
        self._first = first

    def _start_light(self) -> None:
        if self._light is None:
            self._goes_first(True)
            self._light = self._watched(self.agent.light(self.picture, self.deadline))

    def _send(self, option: Option, *, beside: bool = False) -> None:
        follow_ms = self.agent.follow_ms if self.on_final is not None else 0.0
        self._asked = True
        self.agent.sends(option.plan)
        now_s = self.agent.clock()
        overdue_ms = option.total.quantile(_OVERDUE)
        self._sent = Sent(
            option=option,
            task=self._watched(
                self.through_cloud(
                    option.plan,
                    light=beside,
                    follow_ms=follow_ms,
                    layers=(option.least_layers, option.most_layers(self.left_ms)),
                )
            ),
            began_s=now_s,
            asked_again_s=now_s + overdue_ms / 1e3,
            safe=option.least.within(self.left_ms) >= SAFE,
        )

    async def through_cloud(
        self,
        plan: Plan,
        *,
        light: bool = False,
        grace_ms: float = 0.0,
        follow_ms: float = 0.0,
        layers: tuple[int | None, int | None] = (None, None),
        purpose: Purpose = Purpose.ANSWERS,
    ) -> CloudAnswer:
        """What the cloud answers to the request's picture by a plan.

        It is asked for it by the deadline, or `grace_ms` later, and waited for `follow_ms` longer.
        With `light` the light model starts as soon as the device has done its share: the wait for
        the network is free time. Of a frame in layers all are sent and needed, or so many: the
        fewest that an answer needs, and the most that are sent.
        """
        agent, uplink = self.agent, self.agent.uplink
        assert uplink is not None, "a remote plan is only chosen with a cloud in reach"
        began_s = agent.clock()
        framed = await agent.bench.frame(self.picture, plan, self.deadline, agent.expected(plan))
        agent.framed(plan, self.deadline, (agent.clock() - began_s) * 1e3)
        self._learn(framed.stages_ms)
        if light:
            self._start_light()
        left_ms = max(self.left_ms, 0.0) + grace_ms
        if left_ms <= 0.0:
            left_ms, follow_ms = follow_ms, 0.0
        if left_ms <= 0.0:
            raise RemoteTooLate("the device's share took all the time there was")
        in_layers = None
        if in_all := len(framed.ends):
            least, most = (each or in_all for each in layers)
            in_layers = InLayers(framed.ends, least, most)
        sent_bytes = in_layers.sent_bytes if in_layers else len(framed.frame)
        sent_bytes += self.beside.size_bytes
        uplink.allow(sent_bytes, bytes_per_hour=self.demand.bytes_per_hour)
        self.sent_bytes += sent_bytes
        parameters: dict[str, messages.Value] = {
            messages.CONTRACT: agent.manifest.contract(plan).id,
            messages.CODEC: plan.codec,
        }
        if plan.cut:
            parameters[messages.CUT] = plan.cut
        answer = await uplink.infer(
            framed.frame,
            model=agent.manifest.name,
            version=agent.manifest.version,
            parameters=parameters,
            left_ms=left_ms,
            follow_ms=follow_ms,
            beside=self.beside,
            in_layers=in_layers,
            purpose=purpose,
        )
        check_answer(answer, manifest=agent.manifest)
        return answer

    # Waiting for whatever comes first.

    async def _first_good(self) -> Answer:
        while (answer := self._look()) is None:
            pause_s, began_s = self._pause_s(), self.agent.clock()
            if not await self._happened(pause_s) and pause_s is not None:
                self.agent.lateness.woke((self.agent.clock() - began_s - pause_s) * 1e3)
        return answer

    def _watched(self, awaitable: Awaitable[T]) -> "asyncio.Future[T]":
        """Begun, and when it ends, something has happened."""
        future = asyncio.ensure_future(awaitable)
        future.add_done_callback(lambda _: self._wake(True))
        return future

    async def _happened(self, pause_s: float | None) -> bool:
        """Whether something that is watched has ended before a pause has."""
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        timer = None if pause_s is None else loop.call_later(pause_s, self._wake, False)
        try:
            return await self._waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()

    def _wake(self, happened: bool) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(happened)

    def _look(self) -> Answer | None:
        """Takes note of what has happened; the answer, if there is one to give."""
        if self._sent is not None and self._sent.task.done():
            fault = fault_of(self._sent.task)
            self._note(in_time=fault is None and self.left_ms > 0.0)
            if fault is None:
                return self.from_cloud(self._sent.task.result(), self._sent.option.plan)
            lost, self._sent = self._sent.option, None
            self._lost(fault, lost)
        if self._back is not None and self._back.done():
            self._back = None
            self._ask_again()
        if self._light is not None and self._light.done() and self._sight is None:
            self._see(self._light.result())
            if self._sent is None and self._back is None and not self._alone:
                self._ask_again()
        over = self.left_ms <= 0
        if self._light is None:
            self._light_due_s = self._light_at_s(self._in_time())
            if over or self.agent.clock() >= self._light_due_s or self._overdue():
                self._start_light()
            return None
        if not self._light.done() or not (over or self._no_use_waiting()):
            return None
        late = self._sent is not None and (over or self._hopeless)
        return self._from_device(self._light.result(), late=late)

    def _pause_s(self) -> float | None:
        """Until something is due though nothing has happened; None: nothing is."""
        left_ms = self.left_ms
        if left_ms <= 0:
            return None  # whatever comes first now is the least late
        pauses_ms = [left_ms]
        if self._light is None:
            pauses_ms.append((self._light_due_s - self.agent.clock()) * 1e3)
        if self._sent is not None and (self._light is None or self._sight is not None):
            pauses_ms.append((self._sent.asked_again_s - self.agent.clock()) * 1e3)
        return (max(min(pauses_ms), 0.0) + _TICK_MS) / 1e3

    def _overdue(self) -> bool:
        return self._sent is not None and self.agent.clock() >= self._sent.asked_again_s

    def _in_time(self) -> float:
        """How likely what is under way comes in time."""
        sent = self._sent
        return sent.in_time(now_s=self.agent.clock(), left_ms=self.left_ms) if sent else 0.0

    def _note(self, *, in_time: bool) -> None:
        """What is under way was in time or was not, as was to be expected of it."""
        if self._sent is not None and self._sent.safe:
            self.agent.net.saw(in_time=in_time, now_s=self.agent.clock())

    def _no_use_waiting(self) -> bool:
        """Nothing is under way, or what is adds nothing to the answer at hand."""
        sent, sight = self._sent, self._sight
        assert sight is not None, "asked once the light model has answered"
        if sent is None:
            return self._back is None
        now_s = self.agent.clock()
        if now_s >= sent.asked_again_s:
            sent.asked_again_s = now_s + (now_s - sent.began_s) * (_PATIENCE - 1.0)
        in_time = sent.in_time(now_s=now_s, left_ms=self.left_ms)
        self._hopeless = in_time < UNLIKELY and not sight.enough
        return not self.agent.policy.worth_waiting(
            sent.option, self.agent.local, in_time=in_time, demand=self.demand, sight=sight
        )

    # What happens.

    def _see(self, lit: Lit) -> None:
        self._goes_first(False)
        self._learn(lit.stages_ms)
        confidence = lit.confidence
        assurance, auditor = self.agent.assurance, self.agent.auditor
        trusted = auditor is None or auditor.trusts(self.demand.enough)
        self._sight = Sight(
            # What was measured before an alarm is believed as little as the promise.
            agrees=assurance.agrees(confidence) if trusted else assurance.average,
            enough=trusted and assurance.enough(confidence, self.demand.enough),
        )

    def _ask_again(self) -> None:
        """With what is known now; another plan may start."""
        decision = self._ask()
        self._alone = decision.alone
        if decision.option.plan.kind is not PlanKind.LOCAL:
            self._send(decision.option)

    def _lost(self, fault: HybridgeError, option: Option) -> None:
        """The remote plan failed: the device answers, unless the cloud is back in time.

        That is: while there is time left for as long as the plan was expected to take.
        """
        late = isinstance(fault, RemoteTooLate)
        who = "cloud" if isinstance(fault, RemoteError) else "device"
        words = str(fault) if isinstance(fault, NotAllowed) else f"{who} failed: {fault}"
        self._fallback = _LATE if late else words
        self._start_light()
        if isinstance(fault, RemoteUnavailable) and not self._retried:
            self._retried = True
            uplink = self.agent.uplink
            assert uplink is not None
            wait_ms = min(self.left_ms - option.least.mean_ms, _RETRY_WAIT_MS)
            if wait_ms > 0.0:
                self._back = self._watched(uplink.reachable_within(wait_ms / 1e3))

    def _learn(self, stages_ms: dict[str, float]) -> None:
        for stage, ms in stages_ms.items():
            self.agent.times.observe(stage, ms)
            self.steps_ms[stage.partition(":")[0]] = ms

    # Answers.

    def _from_device(self, lit: Lit, *, late: bool) -> Answer:
        if late:
            self._note(in_time=False)
            self._fallback = _LATE
        elif not self._fallback and self._wants_more():
            self._fallback = _NO_TIME
        provisional = self._fallback in _FOR_WANT_OF_TIME
        answer = self._finish(lit, Plan.local(), provisional=provisional)
        if self.on_final is not None and answer.outstanding:
            sent, self._sent = self._sent, None
            self.agent.follow(self, sent, answer)
        elif not answer.fallback and self._sight is not None and self._sight.enough:
            self.agent.audit(self, lit)
        return answer

    def _wants_more(self) -> bool:
        """Whether a plan with time would add what was asked for, and none came in time.

        That is a final answer, or more agreement than this one is sure to have.
        """
        sight, sure = self._sight, self.demand.enough is not None
        if sight is None or sight.enough or self.agent.uplink is None:
            return False
        if not (sure or (self.on_final is not None and self._alone)):
            return False
        best = self.best_remote()
        return best is not None and self.agent.policy.worth_waiting(
            best, self.agent.local, in_time=1.0, demand=self.demand, sight=sight
        )

    def best_remote(self) -> Option | None:
        """Of plans that may be taken, if possible such as there is a cloud for, the best one."""
        return max(
            (
                option
                for option in self.agent.allowed(self.deadline, demand=self.demand)
                if option.plan.kind is not PlanKind.LOCAL
            ),
            key=lambda each: (each.total_ms < math.inf, each.agreement.value, -each.total_ms),
            default=None,
        )

    def from_cloud(self, answer: CloudAnswer, plan: Plan, *, final: bool = False) -> Answer:
        self.steps_ms["network"] = answer.network_ms
        self.steps_ms["cloud_queue"] = answer.queue_ms
        self.steps_ms["cloud_compute"] = answer.compute_ms
        return self._finish(answer, plan, outputs=answer.outputs, final=final, came=answer.came)

    def _finish(
        self,
        given: Lit | CloudAnswer,
        plan: Plan,
        *,
        provisional: bool = False,
        outputs: Tensors | None = None,
        final: bool = False,
        came: Came | None = None,
    ) -> Answer:
        local = plan.kind is PlanKind.LOCAL
        total_ms = self.deadline.spent_ms(self.agent.clock())
        if local and not self._asked:
            before_ms = self.way_in_ms or 0.0
            self.agent.lateness.took(total_ms - before_ms - sum(self.steps_ms.values()))
        return Answer(
            probabilities=given.probabilities,
            plan=plan,
            provisional=provisional,
            fallback=self._fallback if local else "",
            sent_bytes=self.sent_bytes,
            steps_ms=dict(self.steps_ms),
            total_ms=total_ms,
            budget_ms=self.deadline.budget_ms,
            outputs=outputs or {},
            missing=self.beside.wanted if outputs is None else (),
            final=final,
            came=came,
        )

    def _call_off(self) -> None:
        for future in (self._sent.task if self._sent else None, self._light, self._back):
            if future is not None:
                future.cancel()


def fault_of(task: "asyncio.Future[CloudAnswer]") -> HybridgeError | None:
    """Why the cloud gave no answer; what is not in the error tree is a defect and raised."""
    fault = task.exception()
    if fault is not None and not isinstance(fault, HybridgeError):
        raise fault
    return fault

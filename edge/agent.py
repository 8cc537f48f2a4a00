"""Answers pictures by their deadlines, on a device and with a cloud.

The agent knows no transport and no hardware: the service hands it a picture and a deadline, the
bench runs models, the uplink takes frames. Its promise is the net (net.py): the light model starts
early enough for an answer of the device's own to be there whatever the cloud does.
What one request goes through is in `run.py`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from dataclasses import replace
from typing import Any

import numpy as np

from ..devices.models import check_picture
from ..shared.bundle import Bundle
from ..shared.cascade import DELTA
from ..shared.codec.picture import formats_here
from ..shared.deadline import Clock, Deadline
from ..shared.errors import HybridgeError, Overloaded
from ..shared.manifest import Manifest, Rate
from ..shared.plan import Plan, PlanKind
from ..shared.privacy import Privacy
from ..shared.tensor import Array
from .answer import Answer
from .assurance import Assurance
from .auditor import Auditor
from .bench import Bench, Lit
from .best_first import BestFirst
from .board import Board
from .cloud_messages import NOTHING, Beside
from .cloud_times import CloudTimes
from .demand import ANYTHING, Demand
from .duration import Duration
from .lateness import Lateness
from .later import best_answer, finish_later, finish_without
from .net import Net
from .outlook import Outlook, Waits, device_stages
from .policy import Policy, RouterPolicy
from .prices import Prices
from .processor import ProcessorLoad
from .question import Question, Sight
from .router import Decision, Option, explain
from .run import DECODE, OnFinal, Run
from .sent import Sent
from .stage_times import StageTimes
from .transfer import NO_LINK, Transfer
from .two_ways import Ways
from .uplink import Uplink

log = logging.getLogger(__name__)

_AUDIT_MS = 30_000.0
"""How long an audit may take: nobody waits for it."""
_MOST_KEPT_BYTES = 256 << 20
"""Of the pictures of requests that were answered and still want something of a cloud."""
_KEPT = "too many answered pictures wait for the cloud already"


def _no_clock() -> float:
    """A process that knows nothing of its processor time."""
    return 0.0


class Agent:
    """Answers pictures with one bundle, alone or with a cloud (`uplink` None: alone)."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        bench: Bench,
        times: StageTimes,
        uplink: Uplink | None,
        clock: Clock,
        policy: Policy | None = None,
        assurance: Assurance | None = None,
        auditor: Auditor | None = None,
        demand: Demand = ANYTHING,
        prices: Prices | None = None,
        privacy: Privacy | None = None,
        processor: ProcessorLoad | None = None,
        cpu_clock: Clock = _no_clock,
        max_requests: int = 64,
        follow_ms: float = 5_000.0,
    ) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.bench = bench
        self.times = times
        self.uplink = uplink
        self.clock = clock
        self.policy = policy or RouterPolicy()
        self.demand = demand
        self.auditor = auditor
        self.follow_ms = follow_ms
        agreement = _light_agreement(bundle.manifest)
        self.local = Option(Plan.local(), agreement, 0, 0.0, 0.0, 0.0)
        self.assurance = assurance or assurance_of(bundle)
        self.prices = prices or Prices()
        self._outlook = Outlook(
            self.manifest, prices=self.prices, alone=times.alone_ms, privacy=privacy
        )
        self._processor, self._cpu_clock = processor or ProcessorLoad(), cpu_clock
        self._max_requests = max_requests
        self._under_way = 0
        self._board = Board(light_ms=sum(self._alone_ms(self.local.plan)))
        self.lateness = Lateness()
        self.net = Net(times)
        self.unlit = 0
        """Requests under way that go before remote plans: their light model runs, or may yet."""
        self._background: set[asyncio.Task[None]] = set()
        self._kept_bytes = 0

    def close(self) -> None:
        """Lets running stages end; nothing new is taken."""
        for task in self._background:
            task.cancel()
        self.bench.close()

    async def answer(
        self,
        picture: bytes | Array,
        deadline: Deadline,
        beside: Beside = NOTHING,
        *,
        demand: Demand | None = None,
        on_final: OnFinal | None = None,
        way_in_ms: float | None = None,
    ) -> Answer:
        """The best answer the deadline allows, for an encoded picture or RGB uint8 [h, w, 3].

        `beside` goes to the cloud as it is; the light model sees the picture alone. Outputs that
        are wanted by name make the cloud's plans the only ones, as long as one of them fits. With
        `on_final` a provisional answer, or one for want of a cloud, is followed by a final one.
        `way_in_ms` of the budget had passed before the request was here; None if nobody knows.
        Raises PictureError or TensorError for what is no picture, Overloaded if too many requests
        are under way. A cloud that fails raises nothing: the device answers.
        """
        if self._under_way >= self._max_requests:
            raise Overloaded(f"{self._under_way} requests are under way, no more are taken")
        if not isinstance(picture, bytes):
            check_picture(picture)
        demand = demand or self.demand
        if beside.named:
            demand = replace(demand, outputs=True)
        self._under_way += 1
        self._board.comes(now_s=self.clock())
        try:
            run = Run(self, deadline, beside, demand, on_final, way_in_ms)
            return await run.answer(picture)
        finally:
            self._under_way -= 1

    @property
    def unreachable(self) -> str:
        """Says so if there should be a cloud and there is none; else empty."""
        reachable = self.uplink is None or self.uplink.breaker.closed
        return "" if reachable else "cloud out of reach"

    def remarks(self, demand: Demand) -> str:
        """What of a demand cannot be kept here, in words; empty if all of it can."""
        said = [self.prices.missing(demand.objective)]
        if (least := demand.enough) is not None:
            if refusal := self.assurance.refusal(least):
                said.append(
                    f"min_agreement {least:g} is not guaranteed for the light model's answers, so "
                    f"the cloud is asked: {refusal}"
                )
            elif self.auditor is not None and not self.auditor.trusts(least):
                said.append(
                    f"min_agreement {least:g} no longer holds for the light model's answers, so "
                    f"the cloud is asked: {self.auditor.alarm}"
                )
        return "; ".join(filter(None, said))

    def decide(
        self,
        deadline: Deadline,
        *,
        left_ms: float,
        demand: Demand,
        sight: Sight | None,
        large: bool = False,
    ) -> Decision:
        """What the policy says of a request now, whose picture may be much larger than others."""
        link, now_s = self._link(), self.clock()
        share = self._processor.read(self._cpu_clock(), now_s=now_s)
        self._board.used(share, decode_ms=self._decode_ms, now_s=now_s)
        options = self._options(deadline, link)
        waits_ms = self.light_waits_ms(deadline)
        question = Question(
            left_ms=left_ms,
            demand=demand,
            sight=sight,
            spent_bytes=self._spent_bytes(),
            sure_share=self.assurance.share_enough(demand.enough),
            price_per_ms=self._processor.price_per_ms,
            way=link.duration(0),
            net_ms=self.net.needs_ms(now_s=now_s, waits_ms=waits_ms),
            safe_net_ms=self.net.needs_ms(
                now_s=now_s, in_time=0.0 if large else 1.0, waits_ms=waits_ms
            ),
            ways=self._ways(deadline, link) if sight is None and link is not NO_LINK else None,
        )
        decision = self.policy.choose(options, question)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%.0f ms left: %s", left_ms, explain(options, question, decision))
        return decision

    def options(self, deadline: Deadline) -> BestFirst[Option]:
        """Every plan as a request of this deadline would meet it now."""
        return self._options(deadline, self._link())

    def _options(
        self, deadline: Deadline, link: Transfer, waits: Waits | None = None
    ) -> BestFirst[Option]:
        """Among the requests that there are, or those of `waits`."""
        uplink, now_s = self.uplink, self.clock()
        cloud = uplink.cloud if uplink is not None else CloudTimes()
        if waits is None:
            waits = self._among(deadline)
        return self._outlook.options(
            device=self.times.whole,
            transfer=link.forecast,
            transfer_ms=link.least_ms,
            cloud=lambda contract: cloud.forecast(contract, now_s=now_s),
            precision=cloud.precision,
            formats=cloud.formats & formats_here(),
            waits=waits,
            margin_ms=link.way_back_ms - link.rtt_ms if link is not NO_LINK else 0.0,
        )

    def _ways(self, deadline: Deadline, link: Transfer) -> Ways | None:
        """How the board may be used; None if it has room for everything."""
        crowds = self._board.crowds(
            self.bench.waits(deadline),
            decode_ms=self._decode_ms,
            work_ms=self._outlook.most_work_ms,
            now_s=self.clock(),
        )
        if crowds is None:
            return None
        return Ways(
            lit=self._options(deadline, link, crowds.first),
            unlit=self._options(deadline, link, crowds.without),
            room_ms=crowds.room_ms,
            mended=self.assurance.mended,
        )

    def _link(self) -> Transfer:
        """The way to the cloud as it is now; `NO_LINK` where there is none."""
        uplink = self.uplink
        if uplink is None or not uplink.breaker.closed:
            return NO_LINK
        return uplink.link.transfer(now_s=self.clock())

    def allowed(self, deadline: Deadline, *, demand: Demand) -> list[Option]:
        """Of these, what a request may take."""
        spent = self._spent_bytes()
        return [
            option
            for option in self.options(deadline)
            if not demand.forbids(
                option.plan, option.size_bytes, spent_bytes=spent, similarity=option.similarity
            )
        ]

    def _spent_bytes(self) -> int:
        uplink = self.uplink
        return uplink.ledger.spent_bytes(now_s=self.clock()) if uplink is not None else 0

    def _waits(self, deadline: Deadline) -> Waits:
        """What stands before a request on the device: jobs, and who goes first."""
        overhead_ms = self.lateness.overhead_ms
        waits = self.bench.waits(deadline)
        # Whoever has no answer of the device's own yet goes first: that is the net.
        others, each_ms = max(self.unlit - 1, 0), self._decode_ms + overhead_ms
        before = Duration(others * (each_ms + self._board.light_ms))
        return Waits(waits.light, waits.remote.then(before), overhead_ms=overhead_ms)

    def _among(self, deadline: Deadline) -> Waits:
        """The same, among the requests that there are."""
        return self._board.among(
            self._waits(deadline), decode_ms=self._decode_ms, now_s=self.clock()
        )

    @property
    def _decode_ms(self) -> float:
        return self.times.least_ms(DECODE)

    def sends(self, plan: Plan) -> None:
        """A remote plan begins."""
        self._board.sends(self._alone_ms(plan), now_s=self.clock())

    def framed(self, plan: Plan, deadline: Deadline, ms: float) -> None:
        """The device's share of a remote plan took so long."""
        self._board.took(ms, alone_ms=sum(self._alone_ms(plan)), waits=self._among(deadline))

    def _alone_ms(self, plan: Plan) -> list[float]:
        """What the stages of a plan take, each, when nothing else runs."""
        return [self.times.alone_ms(stage) for stage in device_stages(plan)]

    def light_waits_ms(self, deadline: Deadline) -> float:
        """For what a light model may have to wait: those before it, and what has just begun."""
        before_ms = self.bench.waits(deadline).light.mean_ms
        return before_ms + self._board.in_the_way_ms(now_s=self.clock())

    def light(self, picture: Array, deadline: Deadline) -> Awaitable[Lit]:
        """What the light model answers, as soon as its turn has come."""
        self._board.lights(now_s=self.clock())
        return self.bench.light(picture, deadline, self.expected(self.local.plan))

    def expected(self, plan: Plan) -> Duration:
        """How long the device's share of a plan takes."""
        return self.times.whole(device_stages(plan))

    def follow(self, run: Run, sent: Sent | None, given: Answer) -> None:
        """Sees to the final answer of a request that was answered provisionally."""
        if self._has_room(run):
            self._keep(run, finish_later(run, sent, given))
            return
        if sent is not None:
            sent.task.cancel()
        finish_without(run, given, _KEPT)

    def audit(self, run: Run, lit: Lit) -> None:
        """May check an answer that was sure enough against the cloud's, afterwards."""
        uplink, auditor = self.uplink, self.auditor
        if uplink is None or not uplink.breaker.closed or auditor is None or run.demand.stay:
            return
        if not auditor.wants(run.demand.enough):
            return
        if self._has_room(run):
            self._keep(run, self._check(run, int(np.argmax(lit.probabilities)), auditor))
        else:
            auditor.fail(_KEPT)

    async def _check(self, run: Run, given: int, auditor: Auditor) -> None:
        try:
            answer = await best_answer(run, grace_ms=_AUDIT_MS)
        except HybridgeError as error:
            auditor.fail(str(error))
        else:
            auditor.observe(given == int(np.argmax(answer.probabilities)))

    def _has_room(self, run: Run) -> bool:
        return self._kept_bytes + run.picture.nbytes <= _MOST_KEPT_BYTES

    def _keep(self, run: Run, work: Coroutine[Any, Any, None]) -> None:
        """Does what is left to do for a request, and keeps its picture for as long."""
        size_bytes = run.picture.nbytes
        self._kept_bytes += size_bytes

        def done(task: asyncio.Task[None]) -> None:
            self._background.discard(task)
            self._kept_bytes -= size_bytes

        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(done)


def assurance_of(bundle: Bundle, *, delta: float = DELTA) -> Assurance:
    """What a bundle's light model can be relied on for."""
    average = _light_agreement(bundle.manifest).value
    return Assurance(average, bundle.calibration, delta=delta)


def _light_agreement(manifest: Manifest) -> Rate:
    """The table's, of the plan that every bundle has."""
    return next(r for r in manifest.table if r.parsed().kind is PlanKind.LOCAL).agreement

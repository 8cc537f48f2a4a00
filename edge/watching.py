"""What apps and people watch on an edge's port: final answers that came late, and the agent."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Iterator

from ..protos import fleet_pb2 as pb
from ..protos import oip
from ..protos.fleet_pb2_grpc import EdgeServicer
from ..shared.deadline import Clock
from ..shared.errors import Overloaded, RequestError
from .agent import Agent
from .assurance import Assurance
from .auditor import Auditor
from .ledger import Ledger, Purpose
from .link import LinkReading
from .monitor import Counts, Monitor, Summary
from .results import Cursor, LateResult, ResultLog, Wanted
from .uplink import Uplink

_MOST_WATCHERS = 64
_DEFAULT_MS, _LEAST_MS, _MOST_MS = 1_000, 100, 3_600_000


class EdgeWatching(EdgeServicer):
    """Serves the log of late results and the monitor; what is watched knows no watcher."""

    def __init__(self, agent: Agent, results: ResultLog, monitor: Monitor, *, clock: Clock) -> None:
        self._agent = agent
        self._results = results
        self._monitor = monitor
        self._clock = clock
        self._watchers = 0
        self._closed = asyncio.Event()

    def close(self) -> None:
        """Ends every stream."""
        self._closed.set()
        self._results.close()

    async def WatchResults(
        self, request: pb.WatchResultsRequest, context: oip.Context
    ) -> AsyncIterator[pb.LateResult]:
        wanted = Wanted(request.client_id, frozenset(request.request_ids))
        results = self._results
        with self._watcher():
            cursor = results.cursor(epoch=request.epoch, after=request.after, wanted=wanted)
            yield late_result(results, cursor)
            while not results.closed:
                while (result := results.read(cursor)) is not None:
                    yield late_result(results, cursor, result)
                if cursor.dropped:
                    yield late_result(results, cursor)
                await results.grown(cursor)

    async def WatchAgent(
        self, request: pb.WatchAgentRequest, context: oip.Context
    ) -> AsyncIterator[pb.AgentState]:
        interval_s = read_interval_ms(request) / 1e3
        with self._watcher():
            while not self._closed.is_set():
                yield self._state()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(interval_s):
                        await self._closed.wait()

    @contextlib.contextmanager
    def _watcher(self) -> Iterator[None]:
        if self._watchers >= _MOST_WATCHERS:
            raise Overloaded(f"{self._watchers} watch already, no more are taken")
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    def _state(self) -> pb.AgentState:
        now_s = self._clock()
        manifest, uplink = self._agent.manifest, self._agent.uplink
        state = pb.AgentState(
            epoch=self._results.epoch, model=manifest.name, version=manifest.version
        )
        if uplink is not None:
            state.cloud.CopyFrom(cloud_state(uplink, now_s=now_s))
            per_hour = self._agent.demand.bytes_per_hour
            state.sent.CopyFrom(sent_bytes(uplink.ledger, per_hour=per_hour, now_s=now_s))
        if (auditor := self._agent.auditor) is not None:
            state.audit.CopyFrom(audit_state(auditor, self._agent.assurance, now_s=now_s))
        add_summary(state, self._monitor.summary(now_s=now_s))
        return state


def read_interval_ms(request: pb.WatchAgentRequest) -> int:
    """How often a watcher wants to be told; RequestError if that is too often, or never."""
    interval_ms = request.interval_ms or _DEFAULT_MS
    if not _LEAST_MS <= interval_ms <= _MOST_MS:
        raise RequestError(
            f"interval_ms is {interval_ms}; between {_LEAST_MS} and {_MOST_MS} is served"
        )
    return interval_ms


def late_result(log: ResultLog, cursor: Cursor, result: LateResult | None = None) -> pb.LateResult:
    """What a reader is told: a result, or where it stands; and, once, what was dropped before."""
    message = pb.LateResult(epoch=log.epoch, sequence=cursor.at, dropped=cursor.dropped)
    cursor.dropped = 0
    if result is not None:
        message.request_id = result.request_id
        message.response = result.response
    return message


def add_summary(state: pb.AgentState, summary: Summary) -> None:
    """Writes a summary into the message."""
    state.uptime_s = summary.uptime_s
    state.total.CopyFrom(_counts(summary.total))
    state.window_s = summary.window_s
    state.recent.CopyFrom(_counts(summary.recent))
    for shares, counted in ((state.plans, summary.plans), (state.fallbacks, summary.fallbacks)):
        shares.extend(pb.Share(name=name, answers=answers) for name, answers in counted.items())
    state.budget_tenths.extend(summary.budget_tenths)
    state.per_second.extend(summary.per_second)
    state.steps.extend(
        pb.StepTime(name=name, p50_ms=step.p50_ms, p95_ms=step.p95_ms, runs=step.runs)
        for name, step in summary.steps.items()
    )


def sent_bytes(ledger: Ledger, *, per_hour: float, now_s: float) -> pb.SentBytes:
    """All that was sent, and what may be sent yet."""
    spent, by = ledger.spent_bytes(now_s=now_s), ledger.by_purpose
    limited = math.isfinite(per_hour)
    return pb.SentBytes(
        total_bytes=ledger.total_bytes,
        answers_bytes=by[Purpose.ANSWERS],
        finals_bytes=by[Purpose.FINALS],
        audits_bytes=by[Purpose.AUDITS],
        probes_bytes=by[Purpose.PROBES],
        last_hour_bytes=spent,
        allowance_bytes=int(per_hour) if limited else None,
        allowance_left_bytes=max(int(per_hour) - spent, 0) if limited else None,
    )


def audit_state(auditor: Auditor, assurance: Assurance, *, now_s: float) -> pb.AuditState:
    """What the audit has found of the answers that stand."""
    audit, alarm, at_s = auditor.audit, auditor.alarm, auditor.alarm_at_s
    found = audit.estimate()
    return pb.AuditState(
        min_agreement=auditor.min_agreement,
        threshold=assurance.least_confidence(auditor.min_agreement),
        share=audit.settings.share,
        stood=audit.stood,
        asked=audit.wanted,
        audited=found.audited,
        agreed=found.audited - found.differed,
        failed=auditor.failed,
        last_failure=auditor.last_failure,
        agreement_low=1.0 - found.high,
        agreement_high=1.0 - found.low,
        evidence=audit.evidence,
        evidence_for_alarm=1.0 / audit.settings.delta,
        alarm_s=None if at_s is None else now_s - at_s,
        alarm="" if alarm is None else str(alarm),
    )


def cloud_state(uplink: Uplink, *, now_s: float) -> pb.CloudState:
    """The cloud as the agent sees it: whether it is asked at all, and the link to it."""
    breaker = uplink.breaker
    opened_at_s = breaker.opened_at_s
    return pb.CloudState(
        address=uplink.name,
        reachable=breaker.closed,
        unreachable_s=now_s - opened_at_s if opened_at_s is not None else 0.0,
        openings=breaker.openings,
        reason=breaker.reason if breaker.openings or not breaker.closed else "",
        link=link_state(uplink.link.reading(now_s=now_s)),
    )


def link_state(reading: LinkReading) -> pb.LinkState:
    """A reading of the link; what is not known, or has no end, is left out."""

    def known(value: float) -> float | None:
        return value if math.isfinite(value) and reading.exchanges else None

    return pb.LinkState(
        exchanges=reading.exchanges,
        idle_s=known(reading.idle_s),
        rtt_ms=known(reading.rtt_ms),
        rtt_low_ms=known(reading.rtt_low_ms),
        rtt_high_ms=known(reading.rtt_high_ms),
        up_bps=known(reading.up_bps),
        up_low_bps=known(reading.up_low_bps),
        up_high_bps=known(reading.up_high_bps),
        down_bps=known(reading.down_bps),
        waiting_bytes=reading.waiting_bytes,
        stalled_ms=known(reading.stalled_ms),
    )


def _counts(counts: Counts) -> pb.Counts:
    return pb.Counts(
        answers=counts.answers,
        within_budget=counts.within_budget,
        provisional=counts.provisional,
        fallback=counts.fallback,
        finals=counts.finals,
        finals_missing=counts.finals_missing,
        sent_bytes=counts.sent_bytes,
    )

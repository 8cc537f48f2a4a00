"""An agent as a person watches it in a terminal."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..protos import fleet_pb2

_BLOCKS = " ▁▂▃▄▅▆▇█"
_BAR_CELLS = 24
_STALE_S = 5.0
_MOST_ROWS = 8


def agent_view(
    state: fleet_pb2.AgentState | None, *, edge: str, away: str = "", age_s: float = 0.0
) -> RenderableType:
    """The whole view; `away` says why there is nothing newer, `age_s` how old what there is."""
    parts: list[RenderableType] = []
    if away:
        parts.append(Text(f"{away}; trying again ({duration(age_s)})", style="bold red"))
    elif state is None:
        parts.append(Text(f"asking the edge at {edge} ({duration(age_s)})", style="dim"))
    elif age_s > _STALE_S:
        parts.append(Text(f"nothing new for {duration(age_s)}", style="bold yellow"))
    if state is not None:
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="dim", no_wrap=True)
        facts.add_column()
        for name, fact in (*_about(state, edge), *_link(state), *_answers(state), *_audit(state)):
            facts.add_row(name, fact)
        parts += [facts, *_plans(state), *_steps(state)]
    return Group(*parts)


def duration(seconds: float) -> str:
    """A time as people say it: 7.5 s, 2 min 5 s, 3 h 2 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3_600:,} h {whole % 3_600 // 60} min"


def size(size_bytes: float) -> str:
    """An amount of bytes: 900 B, 1.2 MB."""
    return _scaled(size_bytes, ("B", "kB", "MB", "GB", "TB"))


def rate(bits_per_s: float) -> str:
    """A throughput: 11.4 Mbit/s."""
    return _scaled(bits_per_s, ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"))


def sparkline(values: Sequence[float]) -> str:
    """A column for each value, the highest as high as a line; any value above 0 can be seen."""
    most = max(values, default=0)
    if not most:
        return _BLOCKS[0] * len(values)
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[max(round(top * value / most), int(value > 0))] for value in values)


def _about(state: fleet_pb2.AgentState, edge: str) -> Iterator[tuple[str, Text]]:
    yield "edge", Text(f"{edge}, {state.model} {state.version}, up {duration(state.uptime_s)}")
    if not state.HasField("cloud"):
        yield "cloud", Text("none: the device answers alone", style="yellow")
        return
    cloud = state.cloud
    fact = Text(cloud.address)
    if cloud.reachable:
        fact.append(" in reach", style="green")
    else:
        fact.append(f" out of reach for {duration(cloud.unreachable_s)}", style="bold red")
    if cloud.openings:
        fact.append(f", lost {times(cloud.openings)}, last: {cloud.reason}")
    elif not cloud.reachable:
        fact.append(f": {cloud.reason}")
    yield "cloud", fact


def times(count: int) -> str:
    """How often: once, 2 times."""
    return "once" if count == 1 else f"{count:,} times"


def _link(state: fleet_pb2.AgentState) -> Iterator[tuple[str, Text]]:
    if not state.HasField("cloud"):
        return
    link = state.cloud.link
    if not link.exchanges:
        yield "link", Text("not measured yet", style="yellow")
        return
    facts = []
    if link.HasField("rtt_ms"):
        spread = _spread(f"{link.rtt_low_ms:.1f}", f"{link.rtt_high_ms:.1f}")
        facts.append(f"round trip {link.rtt_ms:.1f} ms{spread}")
    facts.append(f"{link.exchanges:,} exchanges")
    if link.HasField("idle_s"):
        facts.append(f"the last {duration(link.idle_s)} ago")
    yield "link", Text(", ".join(facts))
    rates = []
    if link.HasField("up_bps"):
        rates.append(
            f"up {rate(link.up_bps)}{_spread(rate(link.up_low_bps), rate(link.up_high_bps))}"
        )
    if link.HasField("down_bps"):
        rates.append(f"down {rate(link.down_bps)}")
    if link.waiting_bytes:
        rates.append(f"{size(link.waiting_bytes)} under way")
    fact = Text(", ".join(rates))
    if link.stalled_ms:
        fact.append(f", overdue by {duration(link.stalled_ms / 1e3)}", style="yellow")
    yield "", fact


def _spread(low: str, high: str) -> str:
    return f" ({low} to {high})"


def _answers(state: fleet_pb2.AgentState) -> Iterator[tuple[str, Text]]:
    recent, total = state.recent, state.total
    window = duration(state.window_s)
    per_second = recent.answers / state.window_s if state.window_s else 0.0
    rhythm = Text(f"{recent.answers:,} in {window}, {per_second:.1f} a second  ")
    rhythm.append(sparkline(state.per_second), style="cyan")
    yield "answers", rhythm
    kept = Text(_share(recent.within_budget, recent.answers))
    kept.append(f", since the start {_share(total.within_budget, total.answers)}")
    kept.append(f" of {total.answers:,}")
    if recent.within_budget < recent.answers:
        kept.stylize("red")
    yield "in budget", kept
    *tenths, late = state.budget_tenths or [0]
    used = Text("0 ")
    used.append(sparkline(tenths), style="cyan")
    used.append(" 100 % of it used")
    if late:
        used.append(f", {late:,} late", style="red")
    yield "", used
    yield "by the device", Text(_reasons(state))
    finals = f"{recent.provisional:,} provisional, {recent.finals:,} final"
    if recent.finals_missing:
        finals += f", {recent.finals_missing:,} of them no better"
    yield "late", Text(finals)
    sent = f"{size(recent.sent_bytes)}, since the start {size(total.sent_bytes)}, for answers"
    yield "sent", Text(sent)
    if state.HasField("sent"):
        yield from _sent(state.sent)


def _sent(sent: fleet_pb2.SentBytes) -> Iterator[tuple[str, Text]]:
    parts = (
        ("answers", sent.answers_bytes),
        ("late finals", sent.finals_bytes),
        ("audits", sent.audits_bytes),
        ("probes", sent.probes_bytes),
    )
    words = ", ".join(f"{size(part)} {name}" for name, part in parts if part)
    yield "", Text(f"{size(sent.total_bytes)} in all{': ' + words if words else ''}")
    if sent.HasField("allowance_bytes"):
        left, most = sent.allowance_left_bytes, sent.allowance_bytes
        fact = Text(f"{size(left)} left of {size(most)} an hour")
        if left * 10 <= most:
            fact.stylize("red" if left * 100 <= most else "yellow")
        yield "allowance", fact


def _audit(state: fleet_pb2.AgentState) -> Iterator[tuple[str, Text]]:
    if not state.HasField("audit"):
        return
    audit = state.audit
    promise = f"{100 * audit.min_agreement:.4g} % agreement"
    if not audit.HasField("threshold"):
        why = "the bundle's pictures do not show it, so no answer of the device's own stands"
        yield "guarantee", Text(f"{promise}: {why}", style="yellow")
        return
    if audit.HasField("alarm_s"):
        yield "guarantee", Text(f"BROKEN for {duration(audit.alarm_s)}: {audit.alarm}", "bold red")
    else:
        yield "guarantee", Text(f"{promise} of answers at least {audit.threshold:.4g} sure")
    found = Text(f"{audit.agreed:,} of {audit.audited:,} agreed")
    if audit.audited:
        low, high = 100 * audit.agreement_low, 100 * audit.agreement_high
        found.append(f" ({low:.1f} to {high:.1f} %)")
    found.append(f", of {audit.stood:,} that stood {100 * audit.share:.4g} % are audited")
    if not audit.HasField("alarm_s"):
        found.append(f"; evidence {audit.evidence:.2g}, alarm at {audit.evidence_for_alarm:.0f}")
    yield "audit", found
    if audit.failed:
        failed = f"{times(audit.failed)} without an answer, last: {audit.last_failure}"
        yield "", Text(failed, style="yellow")


def _reasons(state: fleet_pb2.AgentState) -> str:
    instead = f"{state.recent.fallback:,} in the cloud's place"
    reasons = ", ".join(f"{reason.answers:,} {reason.name}" for reason in state.fallbacks)
    return f"{instead}: {reasons}" if reasons else instead


def _plans(state: fleet_pb2.AgentState) -> Iterator[RenderableType]:
    if not state.plans:
        return
    rows = _table("plan", "answers", "share", "")
    for plan in state.plans[:_MOST_ROWS]:
        share = plan.answers / state.recent.answers if state.recent.answers else 0.0
        bar = "█" * round(_BAR_CELLS * share)
        rows.add_row(plan.name, f"{plan.answers:,}", f"{share:.0%}", Text(bar, style="cyan"))
    yield Text()
    yield rows


def _steps(state: fleet_pb2.AgentState) -> Iterator[RenderableType]:
    if not state.steps:
        return
    rows = _table("step", "runs", "p50 ms", "p95 ms")
    for step in state.steps:
        rows.add_row(step.name, f"{step.runs:,}", f"{step.p50_ms:.1f}", f"{step.p95_ms:.1f}")
    yield Text()
    yield rows


def _table(first: str, *others: str) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    made.add_column(first, no_wrap=True, min_width=16)
    for other in others:
        made.add_column(other, justify="right" if other else "left", no_wrap=True)
    return made


def _share(part: int, whole: int) -> str:
    """A share that says 100 % only if it is all."""
    if not whole:
        return "no answers yet"
    share = f"{100 * part / whole:.1f} %"
    return "99.9 %" if share == "100.0 %" and part < whole else share


def _scaled(value: float, units: Sequence[str]) -> str:
    unit = 0
    while value >= 1_000 and unit < len(units) - 1:
        value /= 1_000
        unit += 1
    figures = f"{value:.0f}" if value >= 100 or unit == 0 else f"{value:.1f}"
    return f"{figures} {units[unit]}"

"""What a person reads of an agent's state."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hybridge.protos import fleet_pb2 as pb
from hybridge.report.agent_view import agent_view, duration, rate, size, sparkline


def text_of(state: pb.AgentState | None, *, away: str = "", age_s: float = 0.0) -> str:
    console = Console(file=io.StringIO(), width=110, highlight=False)
    console.print(agent_view(state, edge="here:1", away=away, age_s=age_s))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def line_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name))


def busy() -> pb.AgentState:
    return pb.AgentState(
        epoch="A",
        uptime_s=754.0,
        model="cats",
        version="3",
        cloud=pb.CloudState(
            address="cloud:2",
            reachable=True,
            openings=2,
            reason="reset",
            link=pb.LinkState(
                exchanges=40, idle_s=0.5, rtt_ms=51.04, rtt_low_ms=49.0, rtt_high_ms=60.0,
                up_bps=11.4e6, up_low_bps=9e6, up_high_bps=13e6, waiting_bytes=12_000,
            ),
        ),
        total=pb.Counts(answers=2_000, within_budget=1_999, sent_bytes=5_000_000),
        window_s=60.0,
        recent=pb.Counts(
            answers=90, within_budget=90, provisional=4, fallback=5, finals=3, finals_missing=1,
            sent_bytes=900,
        ),
        plans=[pb.Share(name="cloud:jpeg-90", answers=60), pb.Share(name="local", answers=30)],
        fallbacks=[pb.Share(name="cloud late", answers=4), pb.Share(name="others", answers=1)],
        budget_tenths=[0, 10, 40, 40, 0, 0, 0, 0, 0, 0, 0],
        per_second=[0, 1, 2, 4],
        steps=[pb.StepTime(name="light", p50_ms=2.46, p95_ms=3.0, runs=30)],
    )  # fmt: skip


def test_all_of_it() -> None:
    text = text_of(busy())
    assert "here:1, cats 3, up 12 min 34 s" in line_of(text, "edge")
    assert "cloud:2 in reach, lost 2 times, last: reset" in line_of(text, "cloud")
    assert "round trip 51.0 ms (49.0 to 60.0), 40 exchanges, the last 0.5 s ago" in text
    assert "up 11.4 Mbit/s (9.0 Mbit/s to 13.0 Mbit/s), 12.0 kB under way" in text
    assert "90 in 1 min 0 s, 1.5 a second   ▂▄█" in line_of(text, "answers")
    assert "100.0 %, since the start 99.9 % of 2,000" in line_of(text, "in budget")
    assert "0  ▂██       100 % of it used" in text
    assert "5 in the cloud's place: 4 cloud late, 1 others" in line_of(text, "by the device")
    assert "4 provisional, 3 final, 1 of them no better" in line_of(text, "late")
    assert "900 B, since the start 5.0 MB" in line_of(text, "sent")
    assert line_of(text, "cloud:jpeg-90").split()[1:3] == ["60", "67%"]
    assert line_of(text, "light").split() == ["light", "30", "2.5", "3.0"]


def test_a_cloud_out_of_reach() -> None:
    state = busy()
    state.cloud.reachable = False
    state.cloud.unreachable_s = 65.0
    state.cloud.openings = 1
    assert "cloud:2 out of reach for 1 min 5 s, lost once, last: reset" in text_of(state)
    state.cloud.openings = 0
    state.cloud.reason = "never connected"
    state.cloud.link.Clear()
    text = text_of(state)
    assert "out of reach for 1 min 5 s: never connected" in text
    assert "not measured yet" in line_of(text, "link")


def test_an_edge_alone_that_has_answered_nothing() -> None:
    state = pb.AgentState(model="cats", version="3", budget_tenths=[0] * 11)
    text = text_of(state)
    assert "none: the device answers alone" in line_of(text, "cloud")
    assert "no answers yet" in line_of(text, "in budget")
    assert "link" not in text


def test_late_answers_are_told() -> None:
    state = busy()
    state.budget_tenths[10] = 3
    state.cloud.link.stalled_ms = 2_500.0
    text = text_of(state)
    assert "3 late" in text
    assert "overdue by 2.5 s" in text


def test_an_edge_that_is_away() -> None:
    assert "asking the edge at here:1 (0.0 s)" in text_of(None)
    assert text_of(None, away="it is away: why", age_s=61.0).startswith(
        "it is away: why; trying again (1 min 1 s)"
    )
    away = text_of(busy(), away="it is away: why", age_s=4.0)
    assert away.startswith("it is away: why; trying again (4.0 s)")
    assert "cats 3" in away  # what was known stays to be read
    assert "nothing new for 9.0 s" in text_of(busy(), age_s=9.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (90_000, "25 h 0 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("amount", "as_size", "as_rate"),
    [
        (0, "0 B", "0 bit/s"),
        (999, "999 B", "999 bit/s"),
        (1_500, "1.5 kB", "1.5 kbit/s"),
        (123_456_789, "123 MB", "123 Mbit/s"),
        (9.9e15, "9900 TB", "9900000 Gbit/s"),
    ],
)
def test_amounts(amount: float, as_size: str, as_rate: str) -> None:
    assert (size(amount), rate(amount)) == (as_size, as_rate)


@given(st.lists(st.integers(0, 10_000), max_size=80))
def test_sparklines(values: list[int]) -> None:
    line = sparkline(values)
    assert len(line) == len(values)
    assert all((mark == " ") == (value == 0) for mark, value in zip(line, values, strict=True))
    if any(values):
        assert line[values.index(max(values))] == "█"


def test_the_guarantee_and_its_alarm() -> None:
    state = busy()
    state.audit.CopyFrom(
        pb.AuditState(
            min_agreement=0.98, threshold=0.91, share=0.02, stood=4_000, asked=80, audited=79,
            agreed=78, failed=1, last_failure="gone", agreement_low=0.9, agreement_high=0.999,
            evidence=1.5, evidence_for_alarm=100.0,
        )
    )  # fmt: skip
    text = text_of(state)
    assert "98 % agreement of answers at least 0.91 sure" in line_of(text, "guarantee")
    assert "78 of 79 agreed (90.0 to 99.9 %), of 4,000 that stood 2 %" in line_of(text, "audit")
    assert "once without an answer, last: gone" in text
    state.audit.alarm_s, state.audit.alarm = 75.0, "many differ"
    assert "BROKEN for 1 min 15 s: many differ" in line_of(text_of(state), "guarantee")
    state.audit.ClearField("threshold")
    assert "do not show it" in line_of(text_of(state), "guarantee")


def test_all_bytes_and_what_is_left_of_them() -> None:
    state = busy()
    state.sent.CopyFrom(
        pb.SentBytes(
            total_bytes=5_650, answers_bytes=5_000, audits_bytes=500, probes_bytes=150,
            allowance_bytes=10_000, allowance_left_bytes=4_350,
        )
    )  # fmt: skip
    text = text_of(state)
    assert "5.7 kB in all: 5.0 kB answers, 500 B audits, 150 B probes" in text
    assert "4.3 kB left of 10.0 kB an hour" in line_of(text, "allowance")

"""What the monitor says of an agent's answers. The clock is a number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.edge.answer import Answer
from hybridge.edge.monitor import MOST_ANSWERS, WINDOW_S, Monitor
from hybridge.shared.plan import Plan

from ..bundles import CLOUD, LOCAL


def answer(
    *, plan: Plan = LOCAL, total_ms: float = 10.0, budget_ms: float = 100.0, fallback: str = "",
    provisional: bool = False, final: bool = False, sent_bytes: int = 0,
    steps_ms: dict[str, float] | None = None,
) -> Answer:  # fmt: skip
    return Answer(
        probabilities=np.array([0.2, 0.8], np.float32),
        plan=plan,
        provisional=provisional,
        fallback=fallback,
        sent_bytes=sent_bytes,
        steps_ms=steps_ms or {},
        total_ms=total_ms,
        budget_ms=budget_ms,
        final=final,
    )


def test_an_agent_that_has_answered_nothing() -> None:
    summary = Monitor(100.0).summary(now_s=102.5)
    assert (summary.uptime_s, summary.window_s) == (2.5, 2.5)
    assert summary.total.answers == summary.recent.answers == 0
    assert (summary.plans, summary.fallbacks, summary.steps) == ({}, {}, {})
    assert summary.per_second == [0, 0]
    assert summary.budget_tenths == [0] * 11


def test_what_is_counted() -> None:
    monitor = Monitor(0.0)
    given = [
        answer(plan=CLOUD, sent_bytes=1_000, total_ms=50.0),
        answer(fallback="cloud late", provisional=True, total_ms=99.0, sent_bytes=500),
        answer(fallback="cloud out of reach", total_ms=101.0),
        answer(plan=CLOUD, total_ms=900.0, final=True),
        answer(fallback="no final answer: why", final=True, provisional=True),
    ]
    for each in given:
        monitor.record(each, now_s=1.0)
    summary = monitor.summary(now_s=2.0)
    assert summary.recent == summary.total
    total = summary.total
    assert (total.answers, total.within_budget, total.provisional, total.fallback) == (3, 2, 1, 2)
    assert (total.finals, total.finals_missing, total.sent_bytes) == (2, 1, 1_500)
    assert summary.plans == {"local": 2, str(CLOUD): 1}
    assert summary.fallbacks == {"cloud late": 1, "cloud out of reach": 1}
    assert summary.per_second == [0, 3]


@pytest.mark.parametrize(
    ("total_ms", "tenth"),
    [(0.0, 0), (9.9, 0), (10.0, 1), (95.0, 9), (100.0, 9), (100.1, 10), (5_000.0, 10)],
)
def test_shares_of_the_budget(total_ms: float, tenth: int) -> None:
    monitor = Monitor(0.0)
    monitor.record(answer(total_ms=total_ms), now_s=0.5)
    assert monitor.summary(now_s=1.0).budget_tenths.index(1) == tenth


def test_what_is_over_a_minute_old_counts_in_the_total_alone() -> None:
    monitor = Monitor(0.0)
    monitor.record(answer(plan=CLOUD), now_s=1.0)
    monitor.record(answer(), now_s=30.0)
    summary = monitor.summary(now_s=1.0 + WINDOW_S + 1.5)
    assert summary.window_s == WINDOW_S
    assert (summary.total.answers, summary.recent.answers) == (2, 1)
    assert summary.plans == {"local": 1}
    assert sum(summary.per_second) == 1
    assert len(summary.per_second) == WINDOW_S


def test_a_busy_agents_window_is_shorter_and_says_so() -> None:
    monitor = Monitor(0.0)
    for number in range(2 * MOST_ANSWERS):
        monitor.record(answer(), now_s=number / 100)
    summary = monitor.summary(now_s=2 * MOST_ANSWERS / 100)
    assert summary.recent.answers == MOST_ANSWERS
    assert summary.window_s == pytest.approx(MOST_ANSWERS / 100)
    assert summary.total.answers == 2 * MOST_ANSWERS
    assert summary.per_second == [100] * (2 * MOST_ANSWERS // 100)


def test_quantiles_of_steps_in_the_order_of_a_request() -> None:
    monitor = Monitor(0.0)
    for ms in range(1, 101):
        steps = {"network": 2.0 * ms, "other": 1.0, "decode": float(ms)}
        monitor.record(answer(steps_ms=steps), now_s=1.0)
    summary = monitor.summary(now_s=2.0)
    assert list(summary.steps) == ["decode", "network", "other"]
    decode = summary.steps["decode"]
    assert (decode.p50_ms, decode.p95_ms, decode.runs) == (50.0, 95.0, 100)


def test_reasons_that_differ_in_every_word_do_not_grow_the_state() -> None:
    monitor = Monitor(0.0)
    for number in range(100):
        monitor.record(answer(fallback=f"reason {number}"), now_s=1.0)
    fallbacks = monitor.summary(now_s=2.0).fallbacks
    assert len(fallbacks) == 9
    assert sum(fallbacks.values()) == 100
    assert fallbacks["others"] == 92


@given(st.lists(st.tuples(st.floats(0, 200), st.floats(0, 300), st.booleans()), max_size=60))
def test_the_parts_add_up(answers: list[tuple[float, float, bool]]) -> None:
    monitor, now_s = Monitor(0.0), 0.0
    for pause_s, total_ms, final in answers:
        now_s += pause_s
        monitor.record(answer(total_ms=total_ms, final=final), now_s=now_s)
    summary = monitor.summary(now_s=now_s)
    recent = summary.recent
    assert recent.answers == sum(summary.plans.values()) == sum(summary.budget_tenths)
    assert recent.within_budget == sum(summary.budget_tenths[:10])
    assert recent.answers <= summary.total.answers
    assert recent.answers + recent.finals <= len(answers)
    assert len(summary.per_second) <= WINDOW_S

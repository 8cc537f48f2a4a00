import asyncio
import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.cloud.job import StageKey
from hybridge.cloud.statistics import BOUNDS_S, Durations, Refusal, Statistics
from hybridge.cloud.work import Answer, Execution
from hybridge.shared.deadline import Deadline
from hybridge.shared.errors import (
    DeadlineRefused,
    DeadlineUnmet,
    ModelFault,
    Overloaded,
    TensorError,
    UnknownContract,
)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@given(st.lists(st.floats(0, 20)))
def test_durations_are_a_histogram(times_s: list[float]) -> None:
    durations = Durations()
    for took_s in times_s:
        durations.add(took_s)
    assert durations.count == len(times_s)
    assert durations.sum_s == pytest.approx(sum(times_s))
    for at, bound_s in enumerate(BOUNDS_S):
        assert sum(durations.counts[: at + 1]) == sum(took_s <= bound_s for took_s in times_s)


def fail(
    statistics: Statistics,
    error: BaseException,
    *,
    after_s: float = 0.0,
    clock: Clock | None = None,
) -> None:
    """Ends a request of 50 ms with an error."""
    with contextlib.suppress(type(error)), statistics.request() as record:
        record.deadline = Deadline.after_ms(50, now_s=100.0)
        if clock is not None:
            clock.now_s += after_s
        raise error


def answer() -> Answer:
    return Answer(
        probabilities=np.ones((2, 1), np.float32), queue_ms=3.0, compute_ms=8.0, decode_ms=1.0
    )


def test_an_answer_is_counted_step_by_step() -> None:
    clock = Clock()
    statistics = Statistics(clock=clock)
    statistics.add("tiny", "1")
    with statistics.request() as record:
        assert statistics.in_flight == 1
        record.model = statistics.of("tiny", "1")
        clock.now_s += 0.020
        record.answered(answer(), items=2, now_s=clock())
    figures = statistics.of("tiny", "1")
    assert statistics.in_flight == 0
    assert figures.codes == {"OK": 1}
    assert figures.items == 2
    assert {step: round(each.sum_s, 6) for step, each in figures.steps.items()} == {
        "queue": 0.003,
        "decode": 0.001,
        "compute": 0.007,
        "total": 0.020,
    }


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (TensorError("wrong"), "INVALID_ARGUMENT", Refusal.BAD_REQUEST),
        (DeadlineRefused("forecast"), "DEADLINE_EXCEEDED", Refusal.DEADLINE),
        (Overloaded("full"), "RESOURCE_EXHAUSTED", Refusal.QUEUE_FULL),
        (UnknownContract("none"), "FAILED_PRECONDITION", Refusal.NOT_SERVED),
        (ModelFault("NaN"), "INTERNAL", None),
        (ZeroDivisionError(), "INTERNAL", None),
        (asyncio.CancelledError(), "CANCELLED", None),
    ],
)
def test_faults_before_the_deadline(
    error: BaseException, code: str, reason: Refusal | None
) -> None:
    statistics = Statistics(clock=Clock())
    fail(statistics, error)
    assert statistics.unknown.codes == {code: 1}
    assert statistics.unknown.refusals == ({reason: 1} if reason else {})
    assert (statistics.unknown.missed, statistics.in_flight) == (0, 0)


@pytest.mark.parametrize("error", [DeadlineUnmet("passed"), asyncio.CancelledError()])
def test_what_ends_at_its_deadline_is_a_miss(error: BaseException) -> None:
    clock = Clock()
    statistics = Statistics(clock=clock)
    fail(statistics, error, after_s=0.0495, clock=clock)
    assert statistics.unknown.missed == 1
    assert statistics.unknown.refusals == {}
    assert statistics.unknown.failed_s == pytest.approx(0.0495)


def test_a_batch_counts_for_the_version_that_computed_it() -> None:
    statistics = Statistics()
    statistics.add("tiny", "1")
    for items in (4, 4, 0):
        execution = Execution(outcomes=(), items=items, took_ms=10.0, decode_ms=2.0)
        statistics.executed(StageKey("tiny", "1", "relu"), execution)
    (batch,) = statistics.of("tiny", "1").batches.values()
    assert (batch.count, batch.decode_s, batch.compute_s) == (2, 0.004, 0.016)
    assert statistics.unknown.batches == {}


def test_unknown_models_share_one_record() -> None:
    statistics = Statistics()
    statistics.add("tiny", "1")
    assert {id(statistics.of(f"model {at}", "1")) for at in range(100)} == {id(statistics.unknown)}
    assert [(name, version) for name, version, _ in statistics] == [("tiny", "1"), ("", "")]

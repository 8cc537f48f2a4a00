"""Time by step: nothing lost, nothing counted twice."""

from __future__ import annotations

import numpy as np
import pytest

from hybridge.client import Answer
from hybridge.report.steps import Step, breakdown, mean_breakdown


def answer(plan: str, steps_ms: dict[str, float], *, total_ms: float) -> Answer:
    return Answer(
        request_id="",
        labels=("a",),
        probabilities=np.ones(1, np.float32),
        plan=plan,
        confidence=1.0,
        provisional=False,
        fallback="",
        sent_bytes=0,
        total_ms=total_ms,
        budget_ms=100.0,
        within_budget=True,
        steps_ms=steps_ms,
        round_trip_ms=0.0,
    )


def test_steps_and_rest_add_up_to_the_total() -> None:
    steps = {"decode": 4.0, "resize_large": 2.0, "resize_light": 1.0, "light": 10.0, "novel": 3.0}
    found = breakdown(answer("local", steps, total_ms=50.0))
    assert found.steps_ms == {Step.DECODE: 4.0, Step.RESIZE: 3.0, Step.LIGHT: 10.0, Step.REST: 33.0}
    assert found.beside_ms == 0


@pytest.mark.parametrize("plan", ["cloud:raw", "split:a/int8/b"])
def test_a_light_model_beside_the_network_is_no_part_of_the_sum(plan: str) -> None:
    steps = {"decode": 4.0, "network": 30.0, "resize_light": 1.0, "light": 10.0}
    found = breakdown(answer(plan, steps, total_ms=34.0))
    assert found.steps_ms == {Step.DECODE: 4.0, Step.NETWORK: 30.0}
    assert found.beside_ms == 11.0


def test_steps_come_in_the_order_in_which_they_happen() -> None:
    steps = {"cloud_compute": 1.0, "network": 1.0, "encode": 1.0, "decode": 1.0}
    found = breakdown(answer("cloud:raw", steps, total_ms=4.0))
    assert list(found.steps_ms) == [Step.DECODE, Step.ENCODE, Step.NETWORK, Step.CLOUD_COMPUTE]


def test_means_add_up_to_the_mean_total() -> None:
    first = breakdown(answer("local", {"decode": 4.0, "light": 6.0}, total_ms=12.0))
    second = breakdown(answer("cloud:raw", {"decode": 2.0, "network": 40.0}, total_ms=50.0))
    mean = mean_breakdown([first, second])
    assert sum(mean.steps_ms.values()) == pytest.approx(31.0)
    assert mean.steps_ms[Step.NETWORK] == 20.0
    assert mean.share_of(Step.DECODE) == pytest.approx(3 / 31)


def test_a_mean_of_nothing_is_nothing() -> None:
    assert mean_breakdown([]).share_of(Step.DECODE) == 0

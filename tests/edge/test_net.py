"""When the light model has to start."""

from collections.abc import AsyncIterator
from statistics import NormalDist

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.devices.models import LIGHT, RESIZE_LIGHT, Pixels
from hybridge.devices.profile import StageTime
from hybridge.edge.agent import Agent
from hybridge.edge.answer import Answer
from hybridge.edge.net import Net
from hybridge.edge.outlook import device_stages
from hybridge.edge.stage_times import StageTimes
from hybridge.protos import oip
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared.deadline import Deadline, monotonic
from hybridge.shared.plan import Plan

from ..bundles import CLOUD, LOCAL, SPLIT, Small, picture
from .clouds import answer_of, fake_cloud
from .conftest import connected, make_agent
from .policies import Insistent

LATER_MS = 30_000.0

USUAL_MS, MOST_MS = 12.0, 54.0
"""The second is the first, how much later the one that is off by most may be, and a usual run."""
PROFILE = {
    RESIZE_LIGHT: StageTime(p50_ms=1.0, p95_ms=2.0, p999_ms=10.0, runs=1000),
    LIGHT: StageTime(p50_ms=8.0, p95_ms=10.0, p999_ms=40.0, runs=1000),
}


def net_after(*in_time: bool) -> Net:
    """One that has seen such answers, ten a second, until the instant 0."""
    net = Net(StageTimes(PROFILE))
    for ago, each in zip(range(len(in_time) - 1, -1, -1), in_time, strict=True):
        net.saw(in_time=each, now_s=-ago / 10)
    return net


def early(net: Net, *, in_time: float = 1.0, now_s: float = 0.0) -> float:
    """How long the light model has, in ms."""
    return net.needs_ms(now_s=now_s, in_time=in_time)


def test_without_an_answer_under_way_it_starts_with_time_for_one_run_in_a_thousand() -> None:
    assert early(net_after(), in_time=0.0) == pytest.approx(MOST_MS)
    assert early(net_after(), in_time=0.995) == early(net_after(), in_time=1.0) == USUAL_MS


def test_the_surer_an_answer_under_way_the_shorter_a_run_it_has_time_for() -> None:
    """One that is wanted in a case of thirty need not be late in one of a hundred."""
    z_95, z_99, z_999 = map(NormalDist().inv_cdf, (0.95, 0.99, 0.999))
    expected_ms = USUAL_MS + (MOST_MS - USUAL_MS) * (z_99 - z_95) / (z_999 - z_95)
    assert early(net_after(), in_time=0.97) == pytest.approx(expected_ms)
    assert early(net_after(), in_time=0.7) == early(net_after(), in_time=0.1) == MOST_MS


@given(st.floats(0, 1), st.floats(0, 1))
def test_never_longer_for_one_that_is_surer(one: float, two: float) -> None:
    less, more = sorted((one, two))
    assert USUAL_MS <= early(net_after(), in_time=more) <= early(net_after(), in_time=less)


@given(st.floats(0, 1), st.floats(0, 1e4))
def test_whoever_is_before_it_is_waited_for(in_time: float, waits_ms: float) -> None:
    net = net_after()
    alone = net.needs_ms(now_s=0.0, in_time=in_time)
    assert (
        abs(net.needs_ms(now_s=0.0, in_time=in_time, waits_ms=waits_ms) - alone - waits_ms) < 1e-6
    )


def test_answers_that_failed_are_not_relied_on_for_a_while() -> None:
    assert early(net_after(False)) == USUAL_MS  # it may happen
    assert early(net_after(False, *[True] * 20, False)) == pytest.approx(MOST_MS)
    assert early(net_after(False, False, *[True] * 60)) == USUAL_MS
    assert early(net_after(False, False), now_s=60.0) == USUAL_MS
    assert early(net_after(*[False] * 1000), now_s=1.0) == pytest.approx(MOST_MS)


@given(st.lists(st.booleans(), min_size=200, max_size=300), st.floats(0, 100))
def test_a_cloud_that_fails_one_in_twenty_is_never_relied_on(
    in_time: list[bool], ago_s: float
) -> None:
    seen = [each and at % 20 != 0 for at, each in enumerate(in_time)]
    if not all(seen[-20:]) and ago_s < 1.0:
        assert early(net_after(*seen), now_s=ago_s) == pytest.approx(MOST_MS)


def test_a_picture_is_large_beside_the_others() -> None:
    net = net_after()
    assert not any(net.is_large(size) for size in (500_000, 600_000, 900_000, 100_000))
    assert net.is_large(2_000_000)
    assert [net.is_large(2_000_000) for _ in range(60)][-1] is False  # by now all are


class Noting(Net):
    """Keeps what it is told of answers."""

    def __init__(self) -> None:
        super().__init__(StageTimes({**PROFILE, LIGHT: SLOW}))
        self.noted: list[bool] = []
        self.first: list[int] = []
        """How many requests went before remote plans when the cloud was asked."""

    def saw(self, *, in_time: bool, now_s: float) -> None:
        self.noted.append(in_time)
        super().saw(in_time=in_time, now_s=now_s)


SLOW = StageTime(p50_ms=8.0, p95_ms=10.0, p999_ms=LATER_MS, runs=1000)
"""A light model that has to start at once, unless something as good as sure is under way."""


Cloud = tuple[Agent, Noting, list[grpc.StatusCode]]


@pytest.fixture
async def cloud(small: Small, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cloud]:
    """An agent that sends all to a cloud, which fails with the codes of the list, in turn.

    Nothing is overdue, however busy the machine: that would start the light model as well.
    """
    monkeypatch.setattr("hybridge.edge.run._OVERDUE", 1e3)
    failures: list[grpc.StatusCode] = []

    async def serve(request: pb.ModelInferRequest, context: oip.Context) -> pb.ModelInferResponse:
        net.first.append(agent.unlit)
        if failures:
            await context.abort(failures.pop(), "for a reason")
        return answer_of(0, 0, 0, 0, 1)

    async with fake_cloud(small.bundle, serve) as served, connected(served.address) as uplink:
        agent = make_agent(small, uplink, policy=Insistent())
        agent.net = net = Noting()
        yield agent, net, failures
        agent.close()


async def answer_to(agent: Agent, pixels: Pixels) -> Answer:
    return await agent.answer(pixels, Deadline.after_ms(LATER_MS, now_s=monotonic()))


async def test_with_an_answer_as_good_as_sure_under_way_no_light_model_runs(cloud: Cloud) -> None:
    agent, net, _ = cloud
    for seed in range(3):
        answer = await answer_to(agent, picture(seed))
        assert answer.plan == CLOUD
        assert "light" not in answer.steps_ms
    assert net.noted == [True, True, True]
    assert net.first == [0, 0, 0]


async def test_a_stage_that_has_just_begun_may_be_in_its_way(small: Small) -> None:
    """Nothing interrupts it, whoever goes first."""
    agent = make_agent(small, None, clock=lambda: 100.0)
    deadline = Deadline.after_ms(LATER_MS, now_s=100.0)
    assert agent.light_waits_ms(deadline) == 0.0
    agent.sends(SPLIT)
    longest_ms = max(map(agent.times.alone_ms, device_stages(SPLIT)))
    assert longest_ms > 0.0
    assert agent.light_waits_ms(deadline) == longest_ms
    agent.close()


async def test_how_long_a_plan_took_of_the_device_is_noted(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _, _ = cloud
    noted: list[tuple[Plan, float]] = []
    monkeypatch.setattr(agent, "framed", lambda plan, deadline, ms: noted.append((plan, ms)))
    answer = await answer_to(agent, picture(0))
    [(plan, ms)] = noted
    assert plan == answer.plan == CLOUD
    assert answer.total_ms > ms >= answer.steps_ms["resize_large"] + answer.steps_ms["encode"]


async def test_after_two_failures_it_runs_first(cloud: Cloud) -> None:
    agent, net, failures = cloud
    failures += [grpc.StatusCode.INTERNAL] * 2
    failed = await answer_to(agent, picture(0))  # asked once more when the light model had answered
    assert failed.plan == LOCAL
    answer = await answer_to(agent, picture(1))
    assert answer.plan == CLOUD
    assert "light" in answer.steps_ms
    assert net.noted == [False, False, True]


async def test_for_a_much_larger_picture_it_runs_first(cloud: Cloud) -> None:
    agent, _, _ = cloud
    small_one = picture(0)
    await answer_to(agent, small_one)
    answer = await answer_to(agent, np.tile(small_one, (2, 2, 1)))
    assert answer.plan == CLOUD
    assert "light" in answer.steps_ms

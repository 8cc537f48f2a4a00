"""What happens to one request between its picture and its answer, event by event."""

import asyncio
import threading
from dataclasses import dataclass
from typing import Any, cast

import grpc
import numpy as np
import pytest

from hybridge.devices.models import DeviceModels, Pixels
from hybridge.edge import run as run_module
from hybridge.edge import uplink as uplink_module
from hybridge.edge.answer import Answer
from hybridge.edge.assurance import Assurance
from hybridge.edge.demand import Demand
from hybridge.protos import oip
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip as messages
from hybridge.shared.answer import Probabilities
from hybridge.shared.calibration import Calibration
from hybridge.shared.deadline import Deadline, monotonic
from hybridge.shared.plan import Plan

from .. import exposed
from ..bundles import CLOUD, LOCAL, SPLIT, Small, picture
from .clouds import Wire, answer_of, fake_cloud
from .conftest import connected, make_agent
from .policies import Hasty, Insistent

SOON_S = 20.0
LATER_MS = 30_000.0
HOUR_MS = 3_600_000.0
LEAST = Demand(min_agreement=0.98)
ALWAYS_SURE = Assurance(0.6, Calibration(agreed=(0.0,) * 400, differed=()))
NEVER_SURE = Assurance(0.6, Calibration(agreed=(1.0,) * 400, differed=(0.99,) * 400))


def within(budget_ms: float) -> Deadline:
    return Deadline.after_ms(budget_ms, now_s=monotonic())


class Gated(DeviceModels):
    """Its light model runs once it may, and tells when it has."""

    def __init__(self, small: Small) -> None:
        super().__init__(small.bundle)
        self.may_run = threading.Event()
        self.lit = threading.Event()

    def light(self, pixels: Pixels) -> Probabilities:
        assert self.may_run.wait(SOON_S)
        probabilities = super().light(pixels)
        self.lit.set()
        return probabilities


@dataclass
class Jumping:
    """The real clock, and jumps made by hand."""

    ahead_s: float = 0.0

    def __call__(self) -> float:
        return monotonic() + self.ahead_s


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cloud that comes back is found soon, and waited for however busy the machine is."""
    monkeypatch.setattr(uplink_module, "_RECONNECT_S", (0.005, 0.02))
    monkeypatch.setattr(run_module, "_RETRY_WAIT_MS", LATER_MS)


# The cascade.


async def test_a_sure_light_answer_needs_no_cloud(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink, assurance=ALWAYS_SURE, demand=LEAST)
        answer = await agent.answer(picture(0), within(LATER_MS))
        assert (answer.plan, answer.provisional, answer.fallback) == (LOCAL, False, "")
        assert (answer.sent_bytes, cloud.requests) == (0, [])
        np.testing.assert_allclose(answer.probabilities, small.light(picture(0)), rtol=1e-6)
        agent.close()


async def test_a_sure_light_answer_calls_the_cloud_off(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        models = Gated(small)
        agent = make_agent(
            small, uplink, models=models, policy=Hasty(), assurance=ALWAYS_SURE, demand=LEAST
        )
        answering = asyncio.ensure_future(agent.answer(picture(0), within(LATER_MS)))
        await asyncio.wait_for(cloud.asked.wait(), SOON_S)
        models.may_run.set()
        answer = await answering
        assert (answer.plan, answer.provisional, answer.fallback) == (LOCAL, False, "")
        assert answer.sent_bytes > 0
        await asyncio.wait_for(cloud.gone.wait(), SOON_S)
        assert uplink.breaker.closed
        agent.close()


async def test_an_unsure_light_answer_goes_to_the_cloud(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        cloud.allowed.set()
        agent = make_agent(small, uplink, assurance=NEVER_SURE, demand=LEAST)
        answer = await agent.answer(picture(0), within(LATER_MS))
        assert answer.plan == CLOUD
        assert answer.probabilities.tolist() == [0, 0, 0, 0, 1]
        assert "light" in answer.steps_ms  # it was asked first
        agent.close()


async def test_an_agreement_that_the_bundle_cannot_promise_is_never_enough(small: Small) -> None:
    """Four evaluation pictures show nothing: every request goes to the cloud."""
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        cloud.allowed.set()
        agent = make_agent(small, uplink)
        for least in (0.5, 0.98, 0.999999):
            demand = Demand(min_agreement=least)
            answer = await agent.answer(picture(0), within(LATER_MS), demand=demand)
            assert answer.plan == CLOUD
        agent.close()


async def test_an_unsure_answer_without_a_cloud_stands_all_the_same(small: Small) -> None:
    agent = make_agent(small, None, assurance=NEVER_SURE, demand=LEAST)
    answer = await agent.answer(picture(0), within(LATER_MS))
    assert (answer.plan, answer.fallback) == (LOCAL, "")
    agent.close()


# Failures.


async def test_a_broken_exchange_is_tried_again_inside_the_budget(
    small: Small, quick: None
) -> None:
    async def once_down(request: pb.ModelInferRequest, context: oip.Context) -> Any:
        if len(cloud.requests) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        return answer_of(0, 0, 0, 0, 1)

    async with fake_cloud(small.bundle, once_down) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink)
        answer = await agent.answer(picture(0), within(LATER_MS))
        assert (answer.plan, answer.fallback, answer.provisional) == (CLOUD, "", False)
        assert len(cloud.requests) == 2
        assert answer.sent_bytes > 2 * 16 * 16 * 3  # both are counted
        assert uplink.breaker.closed
        agent.close()


async def test_the_second_failure_is_not_tried_again(small: Small, quick: None) -> None:
    async def down(request: pb.ModelInferRequest, context: oip.Context) -> Any:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")

    async with fake_cloud(small.bundle, down) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink)
        answer = await agent.answer(picture(0), within(LATER_MS))
        assert answer.plan == LOCAL
        assert answer.fallback.startswith("cloud failed: ")
        assert not answer.provisional
        assert len(cloud.requests) == 2
        agent.close()


async def test_a_cloud_that_does_not_come_back_is_not_waited_for_until_the_deadline(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "_RETRY_WAIT_MS", 1.0)
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink)
        answering = asyncio.ensure_future(agent.answer(picture(0), within(HOUR_MS)))
        await asyncio.wait_for(cloud.asked.wait(), SOON_S)
        await cloud.server.stop(None)
        answer = await asyncio.wait_for(answering, SOON_S)
        assert answer.plan == LOCAL
        assert answer.fallback.startswith("cloud failed: ")
        agent.close()


async def test_a_wait_without_hope_ends_early_and_is_marked(small: Small) -> None:
    """After 59 minutes of silence nothing comes within the last one."""
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        models, clock = Gated(small), Jumping()
        models.may_run.set()
        agent = make_agent(small, uplink, models=models, policy=Hasty(), clock=clock)
        deadline = Deadline.after_ms(HOUR_MS, now_s=clock())
        answering = asyncio.ensure_future(agent.answer(picture(0), deadline))
        await asyncio.wait_for(cloud.asked.wait(), SOON_S)
        assert await asyncio.to_thread(models.lit.wait, SOON_S)
        assert not answering.done()
        clock.ahead_s = 59 * 60.0
        answer = await asyncio.wait_for(answering, SOON_S)
        assert (answer.plan, answer.provisional, answer.fallback) == (LOCAL, True, "cloud late")
        assert answer.within_budget
        await asyncio.wait_for(cloud.gone.wait(), SOON_S)
        agent.close()


async def test_a_request_on_a_connection_that_is_given_up_is_answered(
    small: Small, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uplink_module, "_STALLED_MS", 5.0)
    async with fake_cloud(small.bundle) as cloud, Wire(cloud.address) as wire:
        cloud.allowed.set()
        async with connected(wire.address) as uplink:
            agent = make_agent(small, uplink, policy=Hasty())
            wire.silence()
            answer = await asyncio.wait_for(agent.answer(picture(0), within(HOUR_MS)), 2 * SOON_S)
            assert answer.plan == CLOUD  # by the connection that took over
            agent.close()


async def test_a_clock_that_jumps_past_the_deadline(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        clock = Jumping()
        agent = make_agent(small, uplink, policy=Hasty(), clock=clock)
        deadline = Deadline.after_ms(LATER_MS, now_s=clock())
        answering = asyncio.ensure_future(agent.answer(picture(0), deadline))
        await asyncio.wait_for(cloud.asked.wait(), SOON_S)
        clock.ahead_s = 2 * LATER_MS / 1e3
        answer = await asyncio.wait_for(answering, SOON_S)
        assert (answer.plan, answer.provisional, answer.fallback) == (LOCAL, True, "cloud late")
        assert not answer.within_budget  # and it says so
        agent.close()


async def test_replies_out_of_order_reach_whom_they_are_for(small: Small) -> None:
    may_answer = [asyncio.Event(), asyncio.Event()]
    both = asyncio.Event()

    async def in_turn(request: pb.ModelInferRequest, context: oip.Context) -> Any:
        place = len(cloud.requests) - 1
        if place == 1:
            both.set()
        await may_answer[place].wait()
        return answer_of(*np.eye(5)[place])

    async with fake_cloud(small.bundle, in_turn) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink)
        first = asyncio.ensure_future(agent.answer(picture(0), within(LATER_MS)))
        await asyncio.wait_for(cloud.asked.wait(), SOON_S)
        second = asyncio.ensure_future(agent.answer(picture(1), within(LATER_MS)))
        await asyncio.wait_for(both.wait(), SOON_S)
        may_answer[1].set()
        assert (await second).probabilities.tolist() == [0, 1, 0, 0, 0]
        may_answer[0].set()
        assert (await first).probabilities.tolist() == [1, 0, 0, 0, 0]
        assert uplink.link.unproven == 0
        agent.close()


@pytest.mark.parametrize("forecast_ms", [1e300, float("inf"), float("nan")])
async def test_a_cloud_that_says_its_queue_is_endless_is_left_alone(
    small: Small, forecast_ms: float
) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        cloud.answer = answer_of(0, 0, 0, 0, 1, forecast_ms=forecast_ms)
        cloud.allowed.set()
        agent = make_agent(small, uplink)
        answers = [await agent.answer(picture(0), within(LATER_MS)) for _ in range(2)]
        assert [answer.plan for answer in answers] == [CLOUD, LOCAL]
        await uplink.probe(0)  # which says that there is none
        assert (await agent.answer(picture(0), within(LATER_MS))).plan == CLOUD
        agent.close()


async def test_a_cloud_that_says_its_queue_is_less_than_empty(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        cloud.answer = answer_of(0, 0, 0, 0, 1, forecast_ms=-1e9, queue_ms=-1e9, compute_ms=-1e9)
        cloud.allowed.set()
        agent = make_agent(small, uplink)
        for _ in range(3):
            answer = await agent.answer(picture(0), within(LATER_MS))
            assert answer.plan == CLOUD
        agent.close()


async def test_budgets_that_differ_by_seven_orders_of_magnitude(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink)
        budgets_ms = (0.3, 600.0, LATER_MS, HOUR_MS)
        hopeless, short, long, longest = (
            asyncio.ensure_future(agent.answer(picture(0), within(budget_ms)))
            for budget_ms in budgets_ms
        )
        assert (await hopeless).plan == LOCAL
        assert not hopeless.result().within_budget
        assert (await short).plan == LOCAL
        assert not long.done()
        assert not longest.done()
        cloud.allowed.set()
        for answer in (await long, await longest):
            assert (answer.plan, answer.provisional) == (CLOUD, False)
        agent.close()


# Final answers.


async def test_where_no_plan_is_in_time_a_final_answer_follows(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud:
        cloud.queue_ms = HOUR_MS
        async with connected(cloud.address) as uplink:
            finals: asyncio.Queue[Answer] = asyncio.Queue()
            agent = make_agent(small, uplink, assurance=NEVER_SURE)
            unasked = await agent.answer(picture(0), within(LATER_MS))
            assert (unasked.plan, unasked.provisional, unasked.fallback) == (LOCAL, False, "")
            asked = within(LATER_MS)
            given = await agent.answer(picture(0), asked, on_final=finals.put_nowait)
            assert (given.plan, given.provisional) == (LOCAL, True)
            assert (given.fallback, given.outstanding) == ("no time for the cloud", True)
            assert given.sent_bytes == 0
            cloud.allowed.set()
            final = await asyncio.wait_for(finals.get(), SOON_S)
            assert (final.plan, final.final, final.fallback) == (CLOUD, True, "")
            assert final.probabilities.tolist() == [0, 0, 0, 0, 1]
            assert len(cloud.requests) == 1
            agent.close()


@pytest.mark.parametrize(
    ("assurance", "demand"),
    [(ALWAYS_SURE, LEAST), (NEVER_SURE, Demand(stay=True))],
    ids=["it is sure", "nothing may leave"],
)
async def test_where_more_time_would_add_nothing_none_follows(
    small: Small, assurance: Assurance, demand: Demand
) -> None:
    async with fake_cloud(small.bundle) as cloud:
        cloud.queue_ms = HOUR_MS
        async with connected(cloud.address) as uplink:
            finals: list[Answer] = []
            agent = make_agent(small, uplink, assurance=assurance, demand=demand)
            given = await agent.answer(picture(0), within(LATER_MS), on_final=finals.append)
            assert (given.plan, given.fallback, given.outstanding) == (LOCAL, "", False)
            await asyncio.gather(*agent._background)
            assert (finals, cloud.requests) == ([], [])
            agent.close()


async def test_a_followed_request_is_as_urgent_as_any_and_waited_for_longer(small: Small) -> None:
    """The cloud goes by the budget; what ends the call is the gRPC deadline."""
    left_s: list[float | None] = []

    async def behave(request: pb.ModelInferRequest, context: oip.Context) -> pb.ModelInferResponse:
        left_s.append(context.time_remaining())
        return answer_of(0, 0, 0, 0, 1)

    async with (
        fake_cloud(small.bundle, behave) as cloud,
        connected(cloud.address) as uplink,
    ):
        agent = make_agent(small, uplink, policy=Insistent())
        agent.follow_ms = HOUR_MS / 2
        for on_final in (None, lambda final: None):
            await agent.answer(picture(0), within(LATER_MS), on_final=on_final)
        asked = [messages.get_parameters(request.parameters) for request in cloud.requests]
        assert [messages.flag(each, messages.FOLLOW) for each in asked] == [False, True]
        for each in asked:
            assert 0.0 < cast(float, each[messages.LATENCY_BUDGET_MS]) <= LATER_MS
        unfollowed_s, followed_s = left_s
        assert unfollowed_s is not None
        assert followed_s is not None
        assert unfollowed_s <= LATER_MS / 1e3 < HOUR_MS / 3e3 < followed_s
        agent.close()


@pytest.mark.parametrize(
    ("measured", "limit", "plan"),
    [(0.45, 1.0, CLOUD), (0.45, 0.5, SPLIT), (0.45, 0.4, LOCAL), (None, 0.5, LOCAL)],
)
async def test_no_more_leaves_the_device_than_may_be_given_away(
    small: Small, measured: float | None, limit: float, plan: Plan
) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        cloud.allowed.set()
        agent = make_agent(
            small,
            uplink,
            assurance=NEVER_SURE,
            privacy=exposed.privacy(small.bundle.manifest, {SPLIT: measured} if measured else {}),
        )
        demand = Demand(max_similarity=limit)
        answer = await agent.answer(picture(2), within(LATER_MS), demand=demand)
        assert answer.plan == plan
        assert (answer.sent_bytes > 0) is (plan != LOCAL)
        assert [r.parameters["cut"].string_param for r in cloud.requests] == (
            [] if plan == LOCAL else [plan.cut]
        )
        agent.close()

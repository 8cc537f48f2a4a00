"""Whatever an edge keeps of requests, peers and outages has a bound, however long it runs."""

import asyncio
import math
from collections.abc import Sequence
from itertools import pairwise

import pytest

from hybridge.edge import agent as agent_module
from hybridge.edge import link as link_module
from hybridge.edge import outlook as outlook_module
from hybridge.edge import uplink as uplink_module
from hybridge.edge.agent import Agent
from hybridge.edge.answer import Answer
from hybridge.edge.duration import NO_TIME
from hybridge.edge.lane import Lane
from hybridge.edge.link import LinkEstimate
from hybridge.edge.outlook import Outlook
from hybridge.shared.codec.picture import PictureFormat
from hybridge.shared.deadline import Deadline

from ..bundles import Small, picture
from .clouds import fake_cloud
from .conftest import connected, make_agent
from .test_audits import Noting
from .test_lane import Clock, Gate, by
from .test_run import (
    ALWAYS_SURE,
    HOUR_MS,
    LATER_MS,
    LEAST,
    NEVER_SURE,
    SOON_S,
    Jumping,
    within,
)


class Kept:
    """An agent that keeps one picture at a time, and the final answers it gave."""

    def __init__(self, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agent_module, "_MOST_KEPT_BYTES", picture(0).nbytes)
        self.agent = agent
        self.finals: asyncio.Queue[Answer] = asyncio.Queue()

    async def ask(self) -> Answer:
        return await self.agent.answer(
            picture(0), within(LATER_MS), on_final=self.finals.put_nowait
        )

    async def final(self) -> Answer:
        return await asyncio.wait_for(self.finals.get(), SOON_S)

    async def done(self) -> None:
        await asyncio.wait_for(asyncio.gather(*self.agent._background), SOON_S)


async def test_pictures_that_wait_for_a_cloud(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_cloud(small.bundle) as cloud:
        cloud.queue_ms = HOUR_MS
        async with connected(cloud.address) as uplink:
            kept = Kept(make_agent(small, uplink, assurance=NEVER_SURE), monkeypatch)
            first, second = await kept.ask(), await kept.ask()
            assert first.outstanding
            assert second.outstanding
            refused = await kept.final()
            assert (refused.final, len(kept.agent._background)) == (True, 1)
            assert refused.fallback == f"no final answer: {agent_module._KEPT}"
            cloud.allowed.set()
            assert (await kept.final()).fallback == ""
            await kept.done()
            cloud.queue_ms = HOUR_MS
            await uplink.probe(0)
            assert (await kept.ask()).outstanding
            assert (await kept.final()).fallback == ""  # there is room again
            kept.agent.close()


async def test_a_plan_under_way_is_called_off_where_no_picture_can_be_kept(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        monkeypatch.setattr(uplink_module, "_STALLED_MS", math.inf)  # no other connection
        clock = Jumping()
        kept = Kept(make_agent(small, uplink, clock=clock), monkeypatch)
        monkeypatch.setattr(agent_module, "_MOST_KEPT_BYTES", 0)
        asking = asyncio.ensure_future(kept.ask())
        await asyncio.wait_for(cloud.asked.wait(), SOON_S)
        clock.ahead_s = 2 * LATER_MS / 1e3
        assert agent_module._KEPT in (await kept.final()).fallback
        assert (await asking).fallback == "cloud late"
        await asyncio.wait_for(cloud.gone.wait(), SOON_S)
        assert not kept.agent._background
        kept.agent.close()


async def test_audits_that_wait_for_a_cloud(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        auditor = Noting()
        agent = make_agent(small, uplink, assurance=ALWAYS_SURE, auditor=auditor, demand=LEAST)
        kept = Kept(agent, monkeypatch)
        for _ in range(2):
            await agent.answer(picture(2), within(LATER_MS))
        assert (auditor.failed, auditor.last_failure) == (1, agent_module._KEPT)
        cloud.allowed.set()
        await kept.done()
        await agent.answer(picture(2), within(LATER_MS))
        assert auditor.failed == 1
        agent.close()


async def submit(lane: Lane, deadlines: Sequence[Deadline]) -> "list[asyncio.Future[None]]":
    return [lane.run(lambda: None, deadline=each, expected=NO_TIME) for each in deadlines]


async def test_jobs_that_nobody_awaits_stay_in_no_lane_though_it_is_never_idle() -> None:
    clock = Clock()
    lane = Lane("test", threads=1, clock=clock)
    gates = [Gate() for _ in range(20)]
    running = lane.run(gates[0], deadline=by(1e9))
    for gate, coming in pairwise(gates):
        await gate.taken()
        given_up = await submit(lane, [by(clock.now_s * 1e3 + 1.0)] * 8)
        for job in given_up:
            job.cancel()
        clock.now_s += 1.0
        following = lane.run(coming, deadline=by(1e9))
        gate.may_end.set()
        assert await running == "gate"
        running = following
        await coming.taken()
        assert len(lane._waiting) + len(lane._late) <= len(given_up)
    gates[-1].may_end.set()
    await running
    lane.close()


def test_exchanges_with_a_cloud_that_answers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_MOST_UNPROVEN", 4)
    link = LinkEstimate()
    known = link.begin(1_000, now_s=0.0)
    link.finish(known, now_s=0.05)
    first = link.begin(1_000, now_s=1.0)
    overdue_ms = link.stall_ms(now_s=10.0)
    assert overdue_ms > 0.0
    for second in range(2, 10):
        link.abandon(link.begin(1_000, now_s=second), now_s=second + 0.5)
    assert link.unproven == 4
    assert link.stall_ms(now_s=10.0) == overdue_ms  # of the first
    last = link.begin(1_000, now_s=10.0)
    link.finish(last, now_s=10.05)
    assert link.unproven == 0
    assert first.end_kb < last.end_kb


def test_clouds_that_say_another_thing_each_time(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlook_module, "_MOST_TABLES", 2)
    outlook = Outlook(small.bundle.manifest)

    def look(*formats: PictureFormat) -> None:
        outlook.options(
            device=lambda stages: NO_TIME,
            transfer=lambda p50, p95: NO_TIME,
            cloud=lambda contract: NO_TIME,
            formats=frozenset(formats),
        )

    for each in PictureFormat:
        look(each)
        look()
        assert len(outlook._ordered) <= 2

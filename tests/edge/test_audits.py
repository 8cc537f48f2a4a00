"""Answers that stood are checked against the cloud's, afterwards."""

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hybridge.edge.audit import AuditSettings
from hybridge.edge.auditor import Auditor
from hybridge.edge.cloud_messages import CloudAnswer
from hybridge.edge.demand import Demand
from hybridge.shared.errors import RemoteUnavailable

from .. import exposed
from ..bundles import CLOUD, LOCAL, SPLIT, Small, picture
from .clouds import answer_of, fake_cloud
from .conftest import connected, make_agent
from .test_run import ALWAYS_SURE, LATER_MS, LEAST, SOON_S, within


class Noting(Auditor):
    """Audits every answer, and tells what it was told."""

    def __init__(self) -> None:
        super().__init__(0.98, delta=0.05, settings=AuditSettings(share=1.0, delta=0.05))
        self.told: asyncio.Queue[bool] = asyncio.Queue()

    def observe(self, agreed: bool) -> None:
        super().observe(agreed)
        self.told.put_nowait(agreed)


async def test_audits_delay_no_answer_and_an_alarm_ends_the_trust(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        auditor = Noting()
        agent = make_agent(small, uplink, assurance=ALWAYS_SURE, auditor=auditor, demand=LEAST)
        assert int(np.argmax(small.light(picture(2)))) != 4  # what the cloud will say
        while auditor.alarm is None:
            answer = await agent.answer(picture(2), within(LATER_MS))
            assert (answer.plan, answer.sent_bytes) == (LOCAL, 0)
            await asyncio.wait_for(cloud.asked.wait(), SOON_S)  # only now, and not answered yet
            cloud.allowed.set()
            assert await asyncio.wait_for(auditor.told.get(), SOON_S) is False
            cloud.asked.clear()
            cloud.allowed.clear()
        cloud.allowed.set()
        answer = await agent.answer(picture(2), within(LATER_MS))
        assert answer.plan == CLOUD
        modest = Demand(min_agreement=0.9)
        assert (await agent.answer(picture(2), within(LATER_MS), demand=modest)).plan == LOCAL
        agent.close()


async def test_an_audit_that_agrees(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        auditor = Noting()
        cloud.answer = answer_of(*np.eye(5)[int(np.argmax(small.light(picture(2))))])
        cloud.allowed.set()
        agent = make_agent(small, uplink, assurance=ALWAYS_SURE, auditor=auditor, demand=LEAST)
        await agent.answer(picture(2), within(LATER_MS))
        assert await asyncio.wait_for(auditor.told.get(), SOON_S) is True
        agent.close()


async def test_an_audit_is_asked_again_where_its_connection_breaks(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        infer, breaks = uplink.infer, [RemoteUnavailable("it was replaced")] * 2

        async def infer_or_break(*given: Any, **named: Any) -> CloudAnswer:
            if breaks:
                raise breaks.pop()
            return await infer(*given, **named)

        monkeypatch.setattr(uplink, "infer", infer_or_break)
        auditor = Noting()
        cloud.allowed.set()
        agent = make_agent(small, uplink, assurance=ALWAYS_SURE, auditor=auditor, demand=LEAST)
        await agent.answer(picture(2), within(LATER_MS))
        await asyncio.wait_for(auditor.told.get(), SOON_S)
        assert (breaks, auditor.failed) == ([], 0)
        agent.close()


@pytest.mark.parametrize(
    "kept",
    [Demand(min_agreement=0.98, stay=True), Demand(min_agreement=0.98, bytes_per_hour=0.0)],
)
async def test_what_may_not_leave_the_device_is_not_audited(small: Small, kept: Demand) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink, assurance=ALWAYS_SURE, auditor=Noting(), demand=kept)
        answer = await agent.answer(picture(2), within(LATER_MS))
        assert answer.plan == LOCAL
        await asyncio.gather(*agent._background)
        assert cloud.requests == []
        agent.close()


@pytest.mark.parametrize("kept", [{"only_cuts": True}, {"max_similarity": 0.5}], ids=str)
async def test_an_audit_sends_no_picture_where_none_may_leave(
    small: Small, kept: dict[str, float]
) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        auditor = Noting()
        cloud.allowed.set()
        demand = replace(LEAST, **kept)  # type: ignore[arg-type]
        agent = make_agent(
            small,
            uplink,
            assurance=ALWAYS_SURE,
            auditor=auditor,
            demand=demand,
            privacy=exposed.privacy(small.bundle.manifest, {SPLIT: 0.45}),
        )
        await agent.answer(picture(2), within(LATER_MS))
        await asyncio.wait_for(auditor.told.get(), SOON_S)
        (request,) = cloud.requests
        assert request.parameters["cut"].string_param == SPLIT.cut
        agent.close()

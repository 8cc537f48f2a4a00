"""Final answers from clouds that do not want what they are asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from hybridge.edge import later as later_module
from hybridge.edge.agent import Agent
from hybridge.edge.answer import Answer
from hybridge.edge.uplink import Uplink
from hybridge.protos import oip
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared.errors import NotAllowed

from ..bundles import CLOUD, SPLIT, Small, picture
from .clouds import answer_of, fake_cloud
from .conftest import connected, make_agent
from .test_run import HOUR_MS, LATER_MS, NEVER_SURE, SOON_S, within


class Refusing:
    """A cloud that refuses with a status what it is asked about a contract, or about all."""

    def __init__(self, status: grpc.StatusCode, *, contract: str = "") -> None:
        self.asked: list[str] = []
        self._status = status
        self._contract = contract

    async def __call__(self, request: pb.ModelInferRequest, context: oip.Context) -> Any:
        self.asked.append(contract := request.parameters["contract"].string_param)
        if self._contract in ("", contract):
            await context.abort(self._status, "not this one")
        return answer_of(0, 0, 0, 0, 1, contract=contract)


@asynccontextmanager
async def asked_too_late(small: Small, cloud: Refusing) -> AsyncIterator[tuple[Uplink, Agent]]:
    """An agent whose answers are the device's own, for want of time, with such a cloud."""
    async with fake_cloud(small.bundle, cloud) as running:
        running.queue_ms = HOUR_MS
        async with connected(running.address) as uplink:
            agent = make_agent(small, uplink, assurance=NEVER_SURE)
            yield uplink, agent
            agent.close()


async def final_of(agent: Agent) -> Answer:
    finals: asyncio.Queue[Answer] = asyncio.Queue()
    given = await agent.answer(picture(0), within(LATER_MS), on_final=finals.put_nowait)
    assert given.outstanding
    return await asyncio.wait_for(finals.get(), SOON_S)


async def test_a_cloud_without_the_contract_is_not_asked_for_it_again(small: Small) -> None:
    whole, cut = (small.bundle.manifest.contract(plan).id for plan in (CLOUD, SPLIT))
    cloud = Refusing(grpc.StatusCode.NOT_FOUND, contract=whole)
    async with asked_too_late(small, cloud) as (_, agent):
        final = await final_of(agent)
        assert (final.plan, final.fallback) == (SPLIT, "")
        assert cloud.asked == [whole, cut]


async def test_a_cloud_of_another_bundle_is_asked_for_each_contract_once(small: Small) -> None:
    cloud = Refusing(grpc.StatusCode.NOT_FOUND)
    async with asked_too_late(small, cloud) as (_, agent):
        final = await final_of(agent)
        assert "not this one" in final.fallback
        assert len(cloud.asked) == len(set(cloud.asked)) == 2


async def test_what_may_not_be_sent_is_not_tried_again(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def allow(size_bytes: int, *, bytes_per_hour: float) -> None:
        tried.append(size_bytes)
        raise NotAllowed("the bytes of this hour are used up")

    async with asked_too_late(small, Refusing(grpc.StatusCode.NOT_FOUND)) as (uplink, agent):
        monkeypatch.setattr(uplink, "allow", allow)
        final = await final_of(agent)
        assert final.fallback == "no final answer: the bytes of this hour are used up"
        assert len(tried) == 1


async def test_who_refuses_is_asked_less_and_less(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses_s: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        pauses_s.append(seconds)
        if len(pauses_s) == 8:
            enough.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(later_module.asyncio, "sleep", sleep)
    cloud = Refusing(grpc.StatusCode.RESOURCE_EXHAUSTED)
    async with asked_too_late(small, cloud) as (_, agent):
        agent.follow_ms = LATER_MS
        await agent.answer(picture(0), within(LATER_MS), on_final=lambda final: None)
        await asyncio.wait_for(enough.wait(), SOON_S)
    low, high = later_module._AGAIN_S
    for power, pause_s in enumerate(pauses_s):
        assert low * 2**power <= pause_s <= high * 2**power

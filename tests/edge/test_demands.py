"""What a request demands, by its parameters through the service, and of one agent."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from hybridge.edge.assurance import Assurance
from hybridge.edge.config import EdgeConfig
from hybridge.edge.daemon import EdgeDaemon
from hybridge.edge.demand import Demand
from hybridge.protos import open_inference_pb2 as pb
from hybridge.protos.oip import Stub
from hybridge.shared import oip
from hybridge.shared.calibration import Calibration
from hybridge.shared.deadline import Deadline, monotonic
from hybridge.shared.security import Address, Security

from ..bundles import CLOUD, LOCAL, NAME, SPLIT, Small, picture
from .clouds import fake_cloud
from .conftest import ANY_PORT, connected, make_agent, measured_copy, run_knowing
from .policies import Insistent

LATER_MS = 30_000.0


@pytest.fixture
async def edge(small: Small, tmp_path: Path, cloud: Address) -> AsyncIterator[EdgeDaemon]:
    """An edge that knows its cloud, and would rather ask it."""
    config = EdgeConfig(
        bundle=measured_copy(small, tmp_path), listen=ANY_PORT, trust=small.trust, cloud=cloud
    )
    async with run_knowing(config) as daemon:
        yield daemon


async def ask(edge: EdgeDaemon, **parameters: oip.Value) -> dict[str, oip.Value]:
    """What the answer to a request with these parameters says of itself."""
    pixels = picture(0)
    request = pb.ModelInferRequest(model_name=NAME)
    request.inputs.add(name="pixels", datatype="UINT8", shape=pixels.shape)
    request.raw_input_contents.append(pixels.tobytes())
    oip.set_parameters(request.parameters, {"latency_budget_ms": LATER_MS, **parameters})
    async with Security().channel(edge.address) as channel:
        response = await Stub(channel).ModelInfer(request)
    return oip.get_parameters(response.parameters)


@pytest.mark.parametrize(
    ("parameters", "plan"),
    [
        ({}, CLOUD),
        ({"stay_local": True}, LOCAL),
        ({"stay_local": "false"}, CLOUD),
        ({"only_cuts": True}, SPLIT),
        ({"only_cuts": "true", "stay_local": "true"}, LOCAL),
        ({"bytes_per_hour": 1}, LOCAL),
        ({"bytes_per_hour": 1e9}, CLOUD),
        ({"objective": "bytes", "min_agreement": 0.8}, SPLIT),
        ({"objective": "bytes", "min_agreement": 0.95}, CLOUD),
        ({"objective": "bytes", "min_agreement": 0.5}, SPLIT),
        ({"objective": "accuracy", "min_agreement": 0.98}, CLOUD),
        ({"min_agreement": "0.999999"}, CLOUD),
    ],
    ids=str,
)
async def test_a_demand_chooses_the_plan(
    edge: EdgeDaemon, parameters: dict[str, oip.Value], plan: object
) -> None:
    """Four evaluation pictures show nothing: the light model's answer is never enough."""
    said = await ask(edge, **parameters)
    assert (said["plan"], said["fallback"], said["provisional"]) == (str(plan), "", False)
    assert (said["sent_bytes"] == 0) == (plan == LOCAL)


async def test_what_is_spent_counts_for_all_requests(edge: EdgeDaemon) -> None:
    uplink = edge.agent.uplink
    assert uplink is not None
    spent = uplink.ledger.total_bytes
    assert (await ask(edge, bytes_per_hour=spent + 1e6))["plan"] == str(CLOUD)
    assert uplink.ledger.total_bytes > spent
    assert (await ask(edge, bytes_per_hour=spent))["plan"] == str(LOCAL)


@pytest.mark.parametrize(
    "parameters",
    [
        {"objective": "speed"},
        {"min_agreement": 98},
        {"min_agreement": 1.0},
        {"stay_local": 1},
        {"only_cuts": "perhaps"},
        {"bytes_per_hour": -1},
        {"bytes_per_hour": "nan"},
    ],
    ids=str,
)
async def test_a_demand_that_means_nothing_is_refused(
    edge: EdgeDaemon, parameters: dict[str, oip.Value]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(edge, **parameters)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert next(iter(parameters)) in str(refused.value.details())
    assert (await ask(edge))["plan"] == str(CLOUD)


async def test_an_answer_that_may_not_be_good_enough_says_so(small: Small) -> None:
    """Nobody asked for a final one; the device's own is not as sure as was demanded."""
    never_sure = Assurance(0.6, Calibration(agreed=(1.0,) * 400, differed=(0.99,) * 400))
    least = Demand(min_agreement=0.98)
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink, assurance=never_sure, demand=least)
        answer = await agent.answer(picture(0), Deadline.after_ms(1.0, now_s=monotonic()))
        assert (answer.plan, answer.provisional) == (LOCAL, True)
        assert answer.fallback in {"cloud late", "no time for the cloud"}
        agent.close()


async def test_no_more_leaves_within_the_hour_than_is_allowed(small: Small) -> None:
    """Many at once, of which the allowance has room for some."""
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        cloud.allowed.set()
        for _ in range(4):  # until all probes of the start have been sent
            await asyncio.wait_for(cloud.probed.get(), LATER_MS / 1e3)
        room_bytes = uplink.ledger.total_bytes + 2_000.0
        agent = make_agent(small, uplink, policy=Insistent(SPLIT))
        demand = Demand(bytes_per_hour=room_bytes)
        deadline = Deadline.after_ms(LATER_MS, now_s=monotonic())
        told = await asyncio.gather(
            *(agent.answer(picture(n), deadline, demand=demand) for n in range(6))
        )
        # The link's own probes, of which a slow machine sees some, are not these requests'.
        assert sum(each.sent_bytes + 400 for each in told if each.sent_bytes) <= 2_000
        kept = [each for each in told if each.plan == LOCAL]
        assert 0 < len(kept) < len(told)
        assert {each.fallback for each in kept} == {
            f"the {room_bytes:,.0f} bytes an hour are used up"
        }
        assert {each.sent_bytes for each in kept} == {0}
        agent.close()

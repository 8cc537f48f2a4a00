"""Clouds that say what is not so: the device answers, and says why; no other answer is given."""

import math
from collections.abc import Awaitable, Callable

import grpc
import numpy as np
import pytest

from hybridge.edge.daemon import most_bytes_of_answers
from hybridge.protos import oip
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip as messages
from hybridge.shared.deadline import Deadline, monotonic

from ..bundles import CLOUD, LOCAL, NAME, Small, picture
from .clouds import answer_of, fake_cloud
from .conftest import connected, make_agent

LONG_MS = 60_000.0
GOOD = (0.0, 0.0, 0.0, 0.0, 1.0)


def within() -> Deadline:
    return Deadline.after_ms(LONG_MS, now_s=monotonic())


def told_as(make: Callable[[pb.ModelInferRequest], pb.ModelInferResponse]) -> Callable[
    [pb.ModelInferRequest, oip.Context], Awaitable[pb.ModelInferResponse]
]:  # fmt: skip
    async def behave(request: pb.ModelInferRequest, context: oip.Context) -> pb.ModelInferResponse:
        return make(request)

    return behave


def of_another_id(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    answer = answer_of(*GOOD)
    answer.id = f"{request.id}0"
    return answer


def of_another_contract(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    return answer_of(*GOOD, contract="another")


def of_another_shape(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    return answer_of(0.0, 1.0)


def of_another_type(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    answer = answer_of(*GOOD)
    answer.outputs[0].datatype = "INT64"
    return answer


def of_no_numbers(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    return answer_of(*GOOD[:4], float("nan"))


@pytest.mark.parametrize(
    "lie", [of_another_id, of_another_contract, of_another_shape, of_another_type, of_no_numbers]
)
async def test_what_is_no_answer_to_this_request_is_not_given(
    small: Small, lie: Callable[[pb.ModelInferRequest], pb.ModelInferResponse]
) -> None:
    async with fake_cloud(small.bundle, told_as(lie)) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink)
        answer = await agent.answer(picture(1), within())
        assert len(cloud.requests) == 1
        assert answer.plan == LOCAL
        assert answer.fallback.startswith("cloud failed: ")
        np.testing.assert_allclose(answer.probabilities, small.light(picture(1)), rtol=1e-6)
        agent.close()


def of_this_request(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    contract = messages.get_parameters(request.parameters)[messages.CONTRACT]
    answer = answer_of(*GOOD, contract=contract)
    answer.id = request.id
    return answer


async def test_requests_under_way_at_once_have_ids_of_their_own(small: Small) -> None:
    behave = told_as(of_this_request)
    async with fake_cloud(small.bundle, behave) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink)
        for seed in range(3):
            answer = await agent.answer(picture(seed), within())
            assert (answer.plan, answer.fallback) == (CLOUD, "")
        assert len({request.id for request in cloud.requests} - {""}) == 3
        agent.close()


@pytest.mark.parametrize("claimed_ms", [3.6e6, 1e300, float("nan"), float("inf"), -1e9])
async def test_what_a_cloud_claims_is_no_longer_than_all_of_it_took(
    small: Small, claimed_ms: float
) -> None:
    def boast(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        return answer_of(*GOOD, queue_ms=claimed_ms, compute_ms=claimed_ms)

    behave = told_as(boast)
    async with fake_cloud(small.bundle, behave) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink)
        for seed in range(2):  # and so the next request is not kept from a cloud that is quick
            answer = await agent.answer(picture(seed), within())
            assert answer.plan == CLOUD
            steps = ("network", "cloud_queue", "cloud_compute")
            assert all(0.0 <= answer.steps_ms[name] <= answer.total_ms for name in steps)
        agent.close()


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION])
async def test_a_cloud_with_another_bundle_is_not_asked_by_every_request(
    small: Small, code: grpc.StatusCode
) -> None:
    async def refuse(request: pb.ModelInferRequest, context: oip.Context) -> pb.ModelInferResponse:
        await context.abort(code, "not here")

    async with fake_cloud(small.bundle, refuse) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink)
        contracts = [cut.contract for cut in small.bundle.manifest.large.cuts]
        most = 1 + len(contracts)  # each contract once
        answers = [await agent.answer(picture(seed), within()) for seed in range(most + 3)]
        assert all(answer.plan == LOCAL for answer in answers)
        assert "cloud failed" in answers[0].fallback
        assert 1 <= len(cloud.requests) <= most
        await uplink.probe(0)  # it says that it has them now
        cloud.behave = told_as(of_this_request)
        assert (await agent.answer(picture(0), within())).plan == CLOUD
        agent.close()


def flood(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    answer = of_this_request(request)
    messages.add_output(answer, "more", np.zeros(2_000_000, np.uint8))
    return answer


async def test_answers_far_too_long_are_neither_read_nor_asked_for_again(small: Small) -> None:
    most = most_bytes_of_answers(small.bundle.manifest)
    async with (
        fake_cloud(small.bundle, told_as(flood)) as cloud,
        connected(cloud.address, most_answer_bytes=most) as uplink,
    ):
        agent = make_agent(small, uplink)
        contracts = 1 + len(small.bundle.manifest.large.cuts)  # each is asked once
        answers = [await agent.answer(picture(seed), within()) for seed in range(contracts)]
        assert "larger than max" in answers[0].fallback
        await uplink.probe(0)  # it goes on to say that it has them
        answers += [await agent.answer(picture(seed), within()) for seed in range(3)]
        assert all(answer.plan == LOCAL for answer in answers)
        assert 1 <= len(cloud.requests) <= contracts
        assert uplink.breaker.closed
        agent.close()


@pytest.mark.parametrize("queue_ms", [math.inf, -1e9, 1e300, math.nan])
async def test_a_cloud_that_lies_about_its_times(small: Small, queue_ms: float) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        cloud.answer = answer_of(
            0, 0, 0, 0, 1, queue_ms=queue_ms, compute_ms=queue_ms, forecast_ms=queue_ms
        )
        cloud.allowed.set()
        answer = await uplink.infer(
            b"frame", model=NAME, version="1", parameters={}, left_ms=LONG_MS
        )
        assert answer.probabilities.tolist() == [0, 0, 0, 0, 1]
        transfer = uplink.link.transfer(now_s=monotonic())
        assert 0.0 < transfer.duration(1000).mean_ms < math.inf
        forecast = uplink.cloud.forecast("", now_s=monotonic())
        assert 0.0 <= forecast.mean_ms <= 2 * 3.6e6

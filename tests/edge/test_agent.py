"""One request through the agent: the plan it takes, and an answer whatever the cloud does."""

import asyncio
import io
import threading

import grpc
import numpy as np
import pytest
from PIL import Image

from hybridge.devices.models import DeviceModels, Pixels, encode_stage
from hybridge.edge.answer import Answer
from hybridge.edge.bench import DeviceBench
from hybridge.edge.outlook import NO_WAITS
from hybridge.protos import oip
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip as messages
from hybridge.shared.answer import Probabilities, to_probabilities
from hybridge.shared.codec import codec_by_name
from hybridge.shared.deadline import Deadline, monotonic
from hybridge.shared.errors import Overloaded, PictureError, TensorError
from hybridge.shared.frame import read_header
from hybridge.shared.plan import Plan
from hybridge.shared.security import Address

from ..bundles import CLOUD, LOCAL, SPLIT, Small, picture
from .clouds import Wire, answer_of, fake_cloud
from .conftest import connected, make_agent

Code = grpc.StatusCode

SOON_MS = 600.0
"""Half of it is the reserve of these tests (conftest.py)."""
LATER_MS = 30_000.0


def within(budget_ms: float) -> Deadline:
    return Deadline.after_ms(budget_ms, now_s=monotonic())


def png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def check_from_device(small: Small, answer: Answer, pixels: Pixels) -> None:
    assert answer.plan == LOCAL
    assert answer.within_budget
    assert 0 < answer.total_ms <= answer.budget_ms
    np.testing.assert_allclose(answer.probabilities, small.light(pixels), rtol=1e-6)
    assert answer.confidence == pytest.approx(float(small.light(pixels).max()))


def through_codec(small: Small, pixels: Pixels, plan: Plan) -> Probabilities:
    """What a plan's tail answers to what its codec lets through."""
    contract = small.bundle.manifest.contract(plan)
    tensor = small.models.tensor(plan, small.models.resize_large(pixels))
    codec = codec_by_name(plan.codec, contract)
    decoded = codec.decode(codec.encode(tensor), shape=contract.shape, dtype=contract.dtype)
    output = small.cloud.run(plan.cut, decoded).astype(np.float32)
    return to_probabilities(output, small.bundle.manifest.large.output)


@pytest.mark.parametrize("seed", range(4))
async def test_alone_the_device_answers(small: Small, seed: int) -> None:
    agent = make_agent(small, None)
    answer = await agent.answer(picture(seed), within(LATER_MS))
    check_from_device(small, answer, picture(seed))
    assert (answer.provisional, answer.fallback, answer.sent_bytes) == (False, "", 0)
    assert set(answer.steps_ms) == {"resize_light", "light"}
    agent.close()


async def test_with_time_the_cloud_answers(small: Small, cloud: Address) -> None:
    async with connected(cloud) as uplink:
        agent = make_agent(small, uplink)
        for seed in range(3):
            answer = await agent.answer(picture(seed), within(LATER_MS))
            assert answer.plan == CLOUD
            expected = small.large(picture(seed))
            np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)
            assert np.abs(expected - small.light(picture(seed))).max() > 0.01
            assert (answer.provisional, answer.fallback) == (False, "")
            assert answer.within_budget
            assert answer.sent_bytes > 16 * 16 * 3
            remote = {"resize_large", "encode", "network", "cloud_queue", "cloud_compute"}
            assert set(answer.steps_ms) - {"resize_light", "light"} == remote
        agent.close()


async def test_with_less_time_the_model_is_split(small: Small, cloud: Address) -> None:
    async with connected(cloud) as uplink:
        agent = make_agent(small, uplink, slow=encode_stage(CLOUD))
        answer = await agent.answer(picture(1), within(LATER_MS))
        assert answer.plan == SPLIT
        expected = through_codec(small, picture(1), SPLIT)
        np.testing.assert_allclose(answer.probabilities, expected, atol=1e-4)
        assert {"resize_large", "head", "encode", "network"} <= set(answer.steps_ms)
        assert 0 < answer.sent_bytes < 200
        agent.close()


async def test_with_least_time_the_device_answers_by_choice(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud:
        cloud.queue_ms = 20_000.0  # ten times what there is
        async with connected(cloud.address) as uplink:
            agent = make_agent(small, uplink)
            answer = await agent.answer(picture(2), within(2_000))
            check_from_device(small, answer, picture(2))
            assert (answer.provisional, answer.fallback, answer.sent_bytes) == (False, "", 0)
            agent.close()


async def test_encoded_pictures_are_those_pixels(small: Small) -> None:
    agent = make_agent(small, None)
    pixels = picture(5, width=33, height=51)
    answer = await agent.answer(png(pixels), within(LATER_MS))
    check_from_device(small, answer, pixels)
    assert set(answer.steps_ms) == {"decode", "resize_light", "light"}
    agent.close()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 300), (300, 1), (700, 500)])
async def test_pictures_of_any_size(small: Small, cloud: Address, width: int, height: int) -> None:
    async with connected(cloud) as uplink:
        agent = make_agent(small, uplink)
        answer = await agent.answer(picture(3, width=width, height=height), within(LATER_MS))
        assert answer.plan == CLOUD
        np.testing.assert_allclose(answer.probabilities.sum(), 1, rtol=1e-4)
        agent.close()


async def test_what_is_no_picture(small: Small) -> None:
    agent = make_agent(small, None)
    for encoded in (b"", b"not a picture", png(picture(0))[:50]):
        with pytest.raises(PictureError):
            await agent.answer(encoded, within(LATER_MS))
    for array in (
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
    ):
        with pytest.raises(TensorError):
            await agent.answer(array, within(LATER_MS))
    check_from_device(small, await agent.answer(picture(0), within(LATER_MS)), picture(0))
    assert agent._under_way == 0
    agent.close()


async def test_many_at_once_keep_their_own_answers(small: Small, cloud: Address) -> None:
    async with connected(cloud) as uplink:
        agent = make_agent(small, uplink, max_requests=40)
        answers = await asyncio.gather(
            *(agent.answer(picture(seed), within(LATER_MS)) for seed in range(40))
        )
        for seed, answer in enumerate(answers):
            expected = (small.light if answer.plan == LOCAL else small.large)(picture(seed))
            np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)
        assert sum(answer.plan == CLOUD for answer in answers) >= 20
        agent.close()


async def test_a_cloud_that_is_not_there(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud:
        nobody = cloud.address
    async with connected(nobody, known=False) as uplink:
        agent = make_agent(small, uplink)
        answer = await agent.answer(picture(0), within(LATER_MS))
        check_from_device(small, answer, picture(0))
        assert (answer.provisional, answer.fallback) == (False, "cloud out of reach")
        agent.close()


async def test_a_cloud_killed_in_mid_request_and_its_return(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink)
        answering = asyncio.ensure_future(agent.answer(picture(0), within(LATER_MS)))
        await cloud.asked.wait()
        await cloud.server.stop(None)
        answer = await answering
        check_from_device(small, answer, picture(0))
        assert answer.fallback.startswith("cloud failed")
        assert not answer.provisional
        assert answer.sent_bytes > 0
        assert not uplink.breaker.closed
        after = await agent.answer(picture(1), within(LATER_MS))
        check_from_device(small, after, picture(1))
        assert (after.fallback, after.sent_bytes) == ("cloud out of reach", 0)
        async with fake_cloud(small.bundle, address=cloud.address) as back:
            back.allowed.set()
            await asyncio.wait_for(uplink.reachable(), 20)
            assert (await agent.answer(picture(0), within(LATER_MS))).plan == CLOUD
        agent.close()


@pytest.mark.parametrize(("passed_s", "waits"), [(0.0, True), (LATER_MS / 2e3, False)])
async def test_a_cloud_is_waited_for_while_it_could_still_answer(
    small: Small, monkeypatch: pytest.MonkeyPatch, passed_s: float, waits: bool
) -> None:
    """The cloud takes more than half of the budget, and half of it has passed, or nothing."""
    async with fake_cloud(small.bundle) as cloud:
        cloud.queue_ms = 0.6 * LATER_MS
        async with connected(cloud.address) as uplink:
            passed, waited = [0.0], asyncio.Event()

            async def reachable() -> None:
                waited.set()

            monkeypatch.setattr(uplink, "reachable", reachable)
            agent = make_agent(small, uplink, clock=lambda: monotonic() + sum(passed))
            answering = asyncio.ensure_future(agent.answer(picture(0), within(LATER_MS)))
            await cloud.asked.wait()
            passed.append(passed_s)
            await cloud.server.stop(None)
            answer = await answering
            check_from_device(small, answer, picture(0))
            assert answer.fallback.startswith("cloud failed")
            assert waited.is_set() == waits
            agent.close()


async def test_a_cloud_that_never_answers(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink)
        answers = [await agent.answer(picture(seed), within(SOON_MS)) for seed in range(2)]
        for seed, answer in enumerate(answers):
            check_from_device(small, answer, picture(seed))
            assert (answer.provisional, answer.fallback) == (True, "cloud late")
        agent.close()


async def test_a_link_that_carries_nothing_any_more(small: Small, cloud: Address) -> None:
    async with Wire(cloud) as wire, connected(wire.address) as uplink:
        agent = make_agent(small, uplink)
        assert (await agent.answer(picture(0), within(LATER_MS))).plan == CLOUD
        wire.broken = True
        answer = await agent.answer(picture(0), within(SOON_MS))
        check_from_device(small, answer, picture(0))
        assert (answer.provisional, answer.fallback) == (True, "cloud late")
        agent.close()


REFUSALS = [code for code in Code if code not in (Code.OK, Code.DEADLINE_EXCEEDED)]


@pytest.mark.parametrize("code", [*REFUSALS, Code.DEADLINE_EXCEEDED], ids=lambda code: code.name)
async def test_a_cloud_that_refuses(small: Small, code: Code) -> None:
    async def refuse(request: pb.ModelInferRequest, context: oip.Context) -> pb.ModelInferResponse:
        await context.abort(code, "for a reason")
        raise AssertionError

    async with fake_cloud(small.bundle, refuse) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink)
        answer = await agent.answer(picture(0), within(LATER_MS))
        check_from_device(small, answer, picture(0))
        assert answer.total_ms < LATER_MS / 2  # at once
        if code is Code.DEADLINE_EXCEEDED:
            assert (answer.provisional, answer.fallback) == (True, "cloud late")
        else:
            assert not answer.provisional
            assert "for a reason" in answer.fallback
        gone = code in (Code.UNAVAILABLE, Code.CANCELLED)
        assert uplink.breaker.closed == (not gone)
        agent.close()


@pytest.mark.parametrize(
    "answer",
    [
        pb.ModelInferResponse(),
        answer_of(),
        answer_of(1, 0, 0, 0),
        answer_of(1, 0, 0, 0, 0, 0),
        answer_of(1, 0, 0, 0, float("nan")),
        answer_of(1, 0, 0, 0, float("inf")),
        answer_of(1, 0, 0, 0, 0, queue_ms="soon"),
    ],
)
async def test_an_answer_that_is_none(small: Small, answer: pb.ModelInferResponse) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        cloud.answer = answer
        cloud.allowed.set()
        agent = make_agent(small, uplink)
        given = await agent.answer(picture(0), within(LATER_MS))
        check_from_device(small, given, picture(0))
        assert given.fallback.startswith("cloud failed: ")
        assert uplink.breaker.closed
        agent.close()


class Signalling(DeviceModels):
    """Tells when the light model has run."""

    def __init__(self, small: Small) -> None:
        super().__init__(small.bundle)
        self.lit = threading.Event()

    def light(self, pixels: Pixels) -> Probabilities:
        probabilities = super().light(pixels)
        self.lit.set()
        return probabilities


async def test_a_cloud_later_than_the_light_model_but_in_time(small: Small) -> None:
    """The device's answer is ready, and still the cloud's is given: it comes by the deadline."""
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink, light_p999_ms=LATER_MS)  # starts at once
        models = Signalling(small)
        agent.bench = DeviceBench(models, clock=monotonic, workers=2)
        answering = asyncio.ensure_future(agent.answer(picture(0), within(LATER_MS)))
        await cloud.asked.wait()
        assert await asyncio.to_thread(models.lit.wait, 20)
        cloud.allowed.set()
        answer = await answering
        assert answer.plan == CLOUD
        assert answer.probabilities.tolist() == [0, 0, 0, 0, 1]
        assert not answer.provisional
        assert "light" in answer.steps_ms
        agent.close()


async def test_what_the_cloud_is_sent(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        cloud.allowed.set()
        agent = make_agent(small, uplink, slow=encode_stage(CLOUD))
        answer = await agent.answer(picture(0), within(LATER_MS))
        (request,) = cloud.requests
        assert (request.model_name, request.model_version) == ("small", "1")
        frame = request.raw_input_contents[0]
        contract = small.bundle.manifest.contract(SPLIT)
        assert read_header(frame).contract == contract.digest
        assert len(frame) == answer.sent_bytes
        parameters = messages.get_parameters(request.parameters)
        left_ms = parameters.pop("latency_budget_ms")
        assert isinstance(left_ms, float)
        assert LATER_MS / 2 < left_ms < LATER_MS
        assert parameters == {"contract": contract.id, "codec": "affine4", "cut": SPLIT.cut}
        agent.close()


async def test_too_many_requests(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink, max_requests=2)
        taken = [
            asyncio.ensure_future(agent.answer(picture(0), within(LATER_MS))) for _ in range(2)
        ]
        await cloud.asked.wait()
        with pytest.raises(Overloaded, match="2 requests are under way"):
            await agent.answer(picture(0), within(LATER_MS))
        cloud.allowed.set()
        for answer in await asyncio.gather(*taken):
            assert answer.plan == CLOUD
        assert (await agent.answer(picture(0), within(LATER_MS))).plan == CLOUD
        agent.close()


async def test_a_cancelled_request_leaves_nothing_behind(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        agent = make_agent(small, uplink)
        before = len(asyncio.all_tasks())
        answering = asyncio.ensure_future(agent.answer(picture(0), within(LATER_MS)))
        await cloud.asked.wait()
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering
        await asyncio.wait_for(cloud.gone.wait(), 20)  # the cloud was told
        assert agent._under_way == 0
        cloud.allowed.set()
        assert (await agent.answer(picture(0), within(LATER_MS))).plan == CLOUD
        assert len(asyncio.all_tasks()) <= before + 1  # the handler of the fake itself
        agent.close()


async def test_a_request_without_any_time_is_answered_late_and_marked(small: Small) -> None:
    agent = make_agent(small, None)
    answer = await agent.answer(picture(0), within(1e-3))
    assert answer.plan == LOCAL
    assert not answer.within_budget
    np.testing.assert_allclose(answer.probabilities, small.light(picture(0)), rtol=1e-6)
    agent.close()


async def test_a_full_board_is_reckoned_with_the_light_model_as_often_as_it_runs(
    small: Small,
) -> None:
    agent = make_agent(small, None, clock=lambda: 100.0)
    deadline = Deadline.after_ms(LATER_MS, now_s=100.0)
    board, seen = agent._board, []
    for runs in range(3):
        seen.append(board.among(NO_WAITS, decode_ms=0.0, now_s=100.0).busy)
        await agent.light(picture(runs), deadline)
    assert 0.0 == seen[0] < seen[1] == pytest.approx(seen[2] / 2)
    agent.close()

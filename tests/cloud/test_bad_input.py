"""Each bad request gets the right status and a clear word, and the cloud goes on serving."""

import asyncio
import dataclasses
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest

from hybridge.cloud.backend import Backend, Result
from hybridge.cloud.config import CloudConfig
from hybridge.cloud.inference import Inference
from hybridge.cloud.stage import Stage
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip
from hybridge.shared.codec import codec_by_name
from hybridge.shared.security import MAX_MESSAGE_BYTES
from hybridge.shared.side import Tensors
from hybridge.shared.signing import SigningKey
from hybridge.shared.tensor import Array

from .bundles import CLASSES, SIZE, TinyModel, random_pixels, write_bundle
from .conftest import Cloud, run_cloud
from .test_service import frame_of, probabilities, request_of

Code = grpc.StatusCode


async def check_refused(
    cloud: Cloud, request: pb.ModelInferRequest, code: Code, *words: str, timeout_s: float = 30
) -> grpc.aio.AioRpcError:
    """The request fails so, and a good one after it is answered."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.stub.ModelInfer(request, timeout=timeout_s)
    assert caught.value.code() is code, caught.value.details()
    for word in words:
        assert word in str(caught.value.details())
    assert "Traceback" not in str(caught.value.details())
    await check_serves(cloud)
    return caught.value


async def check_serves(cloud: Cloud) -> None:
    response = await cloud.stub.ModelInfer(request_of("pixels", random_pixels(0)), timeout=30)
    assert probabilities(response).shape == (1, CLASSES)


def bytes_request(*elements: bytes) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="tiny")
    oip.add_bytes_input(request, "picture", elements)
    return request


@pytest.mark.parametrize("at", [6, 50, 150])
async def test_flipped_bit(cloud: Cloud, model: TinyModel, at: int) -> None:
    frame = frame_of(model.head(random_pixels(0)), contract=model.at_cut, codec="raw").copy()
    frame[at] ^= 1
    await check_refused(cloud, request_of("frame", frame), Code.DATA_LOSS, "corrupt frame")


async def test_truncated_and_senseless_frames(cloud: Cloud, model: TinyModel) -> None:
    frame = frame_of(model.head(random_pixels(0)), contract=model.at_cut, codec="affine4")
    for bad in (frame[:-1], frame[:20], frame[:0], np.zeros(100, np.uint8)):
        await check_refused(cloud, request_of("frame", bad), Code.INVALID_ARGUMENT, "bad frame")


async def test_unknown_contract_names_what_is_served(cloud: Cloud, model: TinyModel) -> None:
    stranger = TinyModel(seed=9)
    frame = frame_of(stranger.head(random_pixels(0)), contract=stranger.at_cut, codec="raw")
    known = (model.at_cut.id[:12], "tiny/1/relu", "tiny/1/whole")
    await check_refused(cloud, request_of("frame", frame), Code.FAILED_PRECONDITION, *known)


@pytest.mark.parametrize(
    "parameters", [{"codec": "raw"}, {"codec": "none"}, {"contract": "00"}, {"cut": "other"}]
)
async def test_parameters_that_disagree(
    cloud: Cloud, model: TinyModel, parameters: dict[str, str]
) -> None:
    frame = frame_of(model.head(random_pixels(0)), contract=model.at_cut, codec="affine4")
    request = request_of("frame", frame, **parameters)
    await check_refused(cloud, request, Code.INVALID_ARGUMENT, *parameters.values())


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((SIZE, SIZE), "uint8"),
        ((SIZE, SIZE + 1, 3), "uint8"),
        ((0, SIZE, SIZE, 3), "uint8"),
        ((9, SIZE, SIZE, 3), "uint8"),
        ((1, 1, SIZE, SIZE, 3), "uint8"),
        ((SIZE, SIZE, 3), "float32"),
        ((), "uint8"),
    ],
)
async def test_wrong_shape_or_dtype(cloud: Cloud, shape: tuple[int, ...], dtype: str) -> None:
    request = request_of("pixels", np.zeros(shape, dtype))
    await check_refused(cloud, request, Code.INVALID_ARGUMENT, "bad tensor")


async def test_malformed_requests(cloud: Cloud) -> None:
    good = request_of("pixels", random_pixels(0))
    short, twice, none, named, output = (pb.ModelInferRequest() for _ in range(5))
    for request in (short, twice, none, named, output):
        request.CopyFrom(good)
    short.raw_input_contents[0] = b"123"
    twice.inputs.append(good.inputs[0])
    del none.raw_input_contents[:]
    named.inputs[0].name = "image"
    output.outputs.add(name="logits")
    for request in (short, twice, none, named, output):
        await check_refused(cloud, request, Code.INVALID_ARGUMENT, "bad tensor")


async def test_pictures_that_are_none(cloud: Cloud, model: TinyModel) -> None:
    png = codec_by_name("png", model.pixels)
    good = png.encode(random_pixels(0))
    bad = Code.INVALID_ARGUMENT
    large = png.encode(np.zeros((SIZE, SIZE + 4, 3), np.uint8))
    huge = png.encode(np.zeros((4001, 4000, 3), np.uint8))
    await check_refused(cloud, bytes_request(huge), bad, "16.0 megapixels")
    for encoded in (b"", b"not a picture", good[: len(good) // 2], large[: len(large) // 2]):
        await check_refused(cloud, bytes_request(encoded), bad, "picture")
    await check_refused(cloud, bytes_request(good, good), bad, "picture")


async def test_unknown_model_and_version(cloud: Cloud) -> None:
    pixels = random_pixels(0)
    not_found = Code.NOT_FOUND
    await check_refused(cloud, request_of("pixels", pixels, model="big"), not_found, "tiny")
    await check_refused(cloud, request_of("pixels", pixels, version="2"), not_found, "there: 1")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.stub.ModelMetadata(pb.ModelMetadataRequest(name="big"))
    assert caught.value.code() is not_found


@pytest.mark.parametrize("budget", [0, -5, 1e9, float("nan"), float("inf"), "soon", True])
async def test_impossible_budgets(cloud: Cloud, budget: oip.Value) -> None:
    request = request_of("pixels", random_pixels(0), latency_budget_ms=budget)
    await check_refused(cloud, request, Code.INVALID_ARGUMENT)


async def test_a_patient_client_is_served(cloud: Cloud) -> None:
    request = request_of("pixels", random_pixels(0))
    response = await cloud.stub.ModelInfer(request, timeout=1e6)
    assert probabilities(response).shape == (1, CLASSES)


async def test_a_budget_too_short_is_refused_at_once(cloud: Cloud) -> None:
    request = request_of("pixels", random_pixels(0), latency_budget_ms=1e-3)
    await check_refused(cloud, request, Code.DEADLINE_EXCEEDED, "forecast", "are left")


async def test_oversized_message(cloud: Cloud) -> None:
    request = request_of("pixels", np.zeros(MAX_MESSAGE_BYTES + 1, np.uint8))
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(str(cloud.address), options=options) as channel:
        wide = dataclasses.replace(cloud, stub=type(cloud.stub)(channel))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wide.stub.ModelInfer(request)
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
    await check_serves(cloud)


async def test_random_bytes_as_a_message(cloud: Cloud) -> None:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = cloud.channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer"
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\xff" * 100)
    assert caught.value.code() is Code.INVALID_ARGUMENT
    await check_serves(cloud)


async def test_a_model_that_gives_nan(config: CloudConfig, key: SigningKey) -> None:
    write_bundle(config.bundles, key=key, name="sick", model=TinyModel(poisoned=True))
    async with run_cloud(config) as cloud:
        poison = np.full((SIZE, SIZE, 3), 255, np.uint8)
        request = request_of("pixels", poison, model="sick")
        await check_refused(cloud, request, Code.INTERNAL, "model failed", "not finite")
        healthy = request_of("pixels", random_pixels(0), model="sick")
        assert np.isfinite(probabilities(await cloud.stub.ModelInfer(healthy))).all()


class Gated(Backend):
    """Computes only once it may; tells when somebody waits for that."""

    def __init__(self, inner: Backend) -> None:
        self.device = inner.device
        self.entered = threading.Semaphore(0)
        self.allowed = threading.Event()
        self._inner = inner

    def run(self, batch: Array, sides: Tensors) -> Result:
        self.entered.release()
        assert self.allowed.wait(60)
        return self._inner.run(batch, sides)


@asynccontextmanager
async def gated(stage: Stage) -> AsyncIterator[Gated]:
    inner = stage._backend
    assert inner is not None
    gate = Gated(inner)
    stage._backend = gate
    try:
        yield gate
    finally:
        gate.allowed.set()
        stage._backend = inner


def inference_of(cloud: Cloud) -> Inference:
    front = cloud.server._front
    assert front is not None
    assert front.now is not None
    return front.now.inference


def whole_stage(cloud: Cloud) -> Stage:
    return inference_of(cloud).repository.model("tiny").whole


async def test_full_queue_refuses_and_loses_nothing(config: CloudConfig) -> None:
    small = dataclasses.replace(config, instances=1, queue_limit=3)
    async with run_cloud(small) as cloud, gated(whole_stage(cloud)) as gate:
        requests = [request_of("pixels", random_pixels(seed)) for seed in range(10)]
        calls = [
            asyncio.ensure_future(cloud.stub.ModelInfer(each, timeout=60)) for each in requests
        ]
        assert await asyncio.to_thread(gate.entered.acquire, timeout=30)
        refused = 0
        while refused < 6:  # one runs, three wait
            done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            for call in done:
                error = call.exception()
                assert isinstance(error, grpc.aio.AioRpcError)
                assert error.code() is Code.RESOURCE_EXHAUSTED
                assert "waiting" in str(error.details())
                calls.remove(call)
                refused += 1
        gate.allowed.set()
        for response in await asyncio.gather(*calls):
            assert probabilities(response).shape == (1, CLASSES)
        await check_serves(cloud)


async def test_a_model_that_hangs_costs_its_callers_only_their_budget(config: CloudConfig) -> None:
    async with run_cloud(config) as cloud, gated(whole_stage(cloud)) as gate:
        request = request_of("pixels", random_pixels(0), latency_budget_ms=50)
        start_s = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cloud.stub.ModelInfer(request)
        assert caught.value.code() is Code.DEADLINE_EXCEEDED
        assert time.monotonic() - start_s < 5
        gate.allowed.set()
        await check_serves(cloud)

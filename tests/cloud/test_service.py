import asyncio
import dataclasses
import queue
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc as triton  # type: ignore[import-untyped]

from hybridge.cloud.config import CloudConfig
from hybridge.cloud.resize import prepare
from hybridge.cloud.stage import Stage
from hybridge.cloud.work import Answer
from hybridge.cloud.worker import Worker
from hybridge.protos import fleet_pb2
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip
from hybridge.shared.answer import Probabilities
from hybridge.shared.codec import codec_by_name
from hybridge.shared.contract import Contract
from hybridge.shared.deadline import Deadline
from hybridge.shared.frame import encode_frame
from hybridge.shared.preprocess import PreprocessSpec
from hybridge.shared.signing import SigningKey
from hybridge.shared.tensor import Array

from .bundles import CODECS, CUT, SIZE, FloatModel, TinyModel, random_pixels, write_bundle
from .conftest import Cloud, run_cloud


def request_of(name: str, array: Array, *, model: str = "tiny", version: str = "",
               **parameters: oip.Value) -> pb.ModelInferRequest:  # fmt: skip
    request = pb.ModelInferRequest(model_name=model, model_version=version, id="7")
    oip.set_parameters(request.parameters, parameters)
    oip.add_input(request, name, array)
    return request


def frame_of(tensor: Array, *, contract: Contract, codec: str) -> npt.NDArray[np.uint8]:
    frame = encode_frame(tensor, contract=contract, codec=codec_by_name(codec, contract))
    return np.frombuffer(frame, np.uint8)


def probabilities(response: pb.ModelInferResponse) -> Probabilities:
    return oip.output_array(response, "probabilities").astype(np.float32)


async def whole(cloud: Cloud, pixels: Array) -> Probabilities:
    return probabilities(await cloud.stub.ModelInfer(request_of("pixels", pixels)))


@pytest.mark.parametrize(
    ("timeout_s", "asked", "grain_ms"),
    [
        (60, {}, 100.0),
        (5, {}, 10.0),
        (60, {oip.LATENCY_BUDGET_MS: 5_000.0}, 0.0),
        (5, {oip.LATENCY_BUDGET_MS: 60_000.0}, 10.0),
        (None, {}, 0.0),
    ],
)
async def test_a_deadline_is_as_exact_as_it_was_told(
    cloud: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    timeout_s: float | None,
    asked: dict[str, oip.Value],
    grain_ms: float,
) -> None:
    seen: list[Deadline] = []
    run = Worker.run

    async def watched(worker: Worker, *args: Any, deadline: Deadline, **further: Any) -> Any:
        seen.append(deadline)
        return await run(worker, *args, deadline=deadline, **further)

    monkeypatch.setattr(Worker, "run", watched)
    await cloud.stub.ModelInfer(request_of("pixels", random_pixels(0), **asked), timeout=timeout_s)
    assert [deadline.grain_ms for deadline in seen] == [grain_ms]


async def test_pixels_one_or_several(cloud: Cloud) -> None:
    pixels = np.stack([random_pixels(seed) for seed in range(3)])
    several = await whole(cloud, pixels)
    assert several.shape == (3, 5)
    np.testing.assert_allclose(several.sum(axis=1), 1, rtol=1e-5)
    for item, expected in zip(pixels, several, strict=True):
        np.testing.assert_allclose(await whole(cloud, item), expected[None], rtol=1e-5)


async def test_a_model_of_floats_takes_floats_and_no_pictures(
    config: CloudConfig, key: SigningKey
) -> None:
    write_bundle(config.bundles, key=key, name="floats", model=FloatModel())
    pixels = random_pixels(0)
    floats = request_of("pixels", pixels.astype(np.float32), model="floats")
    async with run_cloud(config) as cloud:
        answer = probabilities(await cloud.stub.ModelInfer(floats))
        np.testing.assert_allclose(answer, await whole(cloud, pixels), rtol=1e-5)
        metadata = await cloud.stub.ModelMetadata(pb.ModelMetadataRequest(name="floats"))
        assert (metadata.inputs[0].name, metadata.inputs[0].datatype) == ("pixels", "FP32")
        picture = pb.ModelInferRequest(model_name="floats")
        oip.add_bytes_input(picture, "picture", [b"whatever"])
        for wrong in (request_of("pixels", pixels, model="floats"), picture):
            with pytest.raises(grpc.aio.AioRpcError, match="FP32") as caught:
                await cloud.stub.ModelInfer(wrong)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_response_tells_times_and_contract(cloud: Cloud, model: TinyModel) -> None:
    response = await cloud.stub.ModelInfer(request_of("pixels", random_pixels(0)))
    parameters = oip.get_parameters(response.parameters)
    assert parameters[oip.CONTRACT] == model.pixels.id
    for name in (oip.QUEUE_MS, oip.COMPUTE_MS, oip.FORECAST_MS):
        spent_ms = parameters[name]
        assert isinstance(spent_ms, float)
        assert spent_ms >= 0
    assert (response.model_name, response.model_version, response.id) == ("tiny", "1", "7")


@pytest.mark.parametrize("codec", ["raw", *CODECS])
async def test_frames_of_a_cut(cloud: Cloud, model: TinyModel, codec: str) -> None:
    tensor = model.head(random_pixels(1))
    coder = codec_by_name(codec, model.at_cut)
    crossed = coder.decode(coder.encode(tensor), shape=tensor.shape, dtype="INT8")
    frame = frame_of(tensor, contract=model.at_cut, codec=codec)
    request = request_of("frame", frame, cut=CUT, codec=codec, contract=model.at_cut.id)
    response = await cloud.stub.ModelInfer(request)
    np.testing.assert_allclose(probabilities(response), model.tail(crossed), rtol=1e-4)


async def test_split_is_the_whole(cloud: Cloud, model: TinyModel) -> None:
    pixels = random_pixels(2)
    frame = frame_of(model.head(pixels), contract=model.at_cut, codec="raw")
    split = probabilities(await cloud.stub.ModelInfer(request_of("frame", frame)))
    np.testing.assert_allclose(split, await whole(cloud, pixels), atol=0.05)


@pytest.mark.parametrize("codec", ["raw", "jpeg-90", "webp-75", "png"])
async def test_frames_of_pictures(cloud: Cloud, model: TinyModel, codec: str) -> None:
    coder = codec_by_name(codec, model.pixels)
    pixels = random_pixels(3)
    crossed = coder.decode(coder.encode(pixels), shape=pixels.shape, dtype="UINT8")
    frame = frame_of(pixels, contract=model.pixels, codec=codec)
    response = await cloud.stub.ModelInfer(request_of("frame", frame, codec=codec))
    expected = await whole(cloud, crossed)
    np.testing.assert_allclose(probabilities(response), expected, rtol=1e-5)


async def test_encoded_picture_of_the_right_size(cloud: Cloud, model: TinyModel) -> None:
    pixels = random_pixels(4)
    request = pb.ModelInferRequest(model_name="tiny")
    encoded = codec_by_name("png", model.pixels).encode(pixels)
    oip.add_bytes_input(request, "picture", [encoded])
    response = await cloud.stub.ModelInfer(request)
    np.testing.assert_allclose(probabilities(response), await whole(cloud, pixels), rtol=1e-5)


async def test_encoded_picture_of_any_size(cloud: Cloud, model: TinyModel) -> None:
    pixels = np.random.default_rng(0).integers(0, 250, (90, 70, 3), np.uint8)
    request = pb.ModelInferRequest(model_name="tiny")
    oip.add_bytes_input(request, "picture", [codec_by_name("png", model.pixels).encode(pixels)])
    answer = probabilities(await cloud.stub.ModelInfer(request))
    ready = prepare(pixels, PreprocessSpec(size_px=SIZE))
    np.testing.assert_allclose(answer, await whole(cloud, ready), rtol=1e-5)


async def test_old_and_new_versions_side_by_side(config: CloudConfig, key: SigningKey) -> None:
    old, new = TinyModel(), TinyModel(seed=1)
    write_bundle(config.bundles, key=key, version="10", model=new)
    async with run_cloud(config) as cloud:
        pixels = random_pixels(5)
        for model, version in ((old, "1"), (new, "10")):
            frame = frame_of(model.head(pixels), contract=model.at_cut, codec="raw")
            response = await cloud.stub.ModelInfer(request_of("frame", frame))
            assert response.model_version == version
            np.testing.assert_allclose(
                probabilities(response), model.tail(model.head(pixels)), rtol=1e-4
            )
        newest = await cloud.stub.ModelInfer(request_of("pixels", pixels))
        assert newest.model_version == "10"
        named = await cloud.stub.ModelInfer(request_of("pixels", pixels, version="1"))
        assert named.model_version == "1"


async def test_many_at_once(config: CloudConfig) -> None:
    async with run_cloud(dataclasses.replace(config, queue_limit=100)) as cloud:
        pictures = [random_pixels(seed) for seed in range(60)]
        together = await asyncio.gather(*(whole(cloud, picture) for picture in pictures))
        for picture, answer in zip(pictures[:5], together, strict=False):
            np.testing.assert_allclose(answer, await whole(cloud, picture), rtol=1e-5)


async def test_a_followed_request_is_answered_after_its_budget(cloud: Cloud) -> None:
    """Its budget says when it is due, the gRPC deadline until when it is wanted."""
    pixels = random_pixels(0)
    budget: dict[str, oip.Value] = {oip.LATENCY_BUDGET_MS: 1e-3}
    refused: tuple[dict[str, oip.Value], ...] = (budget, {**budget, oip.FOLLOW: False})
    for asked in refused:
        request = request_of("pixels", pixels, **asked)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await cloud.stub.ModelInfer(request, timeout=60)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    request = request_of("pixels", pixels, **budget, **{oip.FOLLOW: True})
    response = await cloud.stub.ModelInfer(request, timeout=60)
    np.testing.assert_allclose(probabilities(response), await whole(cloud, pixels), rtol=1e-5)


@pytest.mark.parametrize(("budget_ms", "kept_ms"), [(30_000.0, 62.0), (300.0, 30.0)])
async def test_its_budget_less_the_way_out_puts_a_request_into_the_queue_followed_or_not(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, budget_ms: float, kept_ms: float
) -> None:
    assert cloud.server._worker is not None
    for _ in range(64):
        cloud.server._worker._handovers_ms.add(30.0)
    submit, due_ms = Worker.run, []

    async def run(worker: Worker, stage: Stage, *, deadline: Deadline, **work: Any) -> Answer:
        due_ms.append(deadline.budget_ms)
        unhurried = Deadline.after_ms(60_000.0, now_s=deadline.start_s)
        return await submit(worker, stage, deadline=unhurried, **work)

    monkeypatch.setattr(Worker, "run", run)
    for follow in (False, True):
        asked: dict[str, oip.Value] = {oip.LATENCY_BUDGET_MS: budget_ms, oip.FOLLOW: follow}
        await cloud.stub.ModelInfer(request_of("pixels", random_pixels(0), **asked), timeout=60)
    assert due_ms == [pytest.approx(budget_ms - kept_ms)] * 2


async def test_probe(cloud: Cloud, model: TinyModel) -> None:
    frame = frame_of(model.head(random_pixels(0)), contract=model.at_cut, codec="raw")
    await cloud.stub.ModelInfer(request_of("frame", frame))
    probe = await cloud.fleet.Probe(fleet_pb2.ProbeRequest(payload=bytes(1000)))
    assert {tail.contract for tail in probe.tails} == {model.pixels.id, model.at_cut.id}
    assert {tail.precision for tail in probe.tails} == {"float32"}
    assert all(0 < tail.compute_p50_ms <= tail.compute_p95_ms for tail in probe.tails)
    assert probe.picture_formats == ["avif", "jpeg", "jxl", "png", "webp"]
    assert probe.queue_forecast_ms == 0
    assert probe.uptime_s > 0
    other = await cloud.fleet.Probe(fleet_pb2.ProbeRequest(model_name="other"))
    assert not other.tails


async def test_tritonclient(cloud: Cloud) -> None:
    """The unmodified client of Triton, in a thread as it blocks."""
    pixels = random_pixels(6)
    expected = await whole(cloud, pixels)
    await asyncio.to_thread(check_tritonclient, str(cloud.address), pixels, expected)


def check_tritonclient(url: str, pixels: Array, expected: Probabilities) -> None:
    with triton.InferenceServerClient(url) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.is_model_ready("tiny", "1")
        assert not client.is_model_ready("tiny", "2")
        assert client.get_server_metadata().name == "hybridge-cloud"
        metadata = client.get_model_metadata("tiny")
        assert list(metadata.versions) == ["1"]
        assert [(i.name, i.datatype, list(i.shape)) for i in metadata.inputs] == [
            ("pixels", "UINT8", [-1, SIZE, SIZE, 3])
        ]
        assert [(o.name, o.datatype, list(o.shape)) for o in metadata.outputs] == [
            ("probabilities", "FP32", [-1, 5])
        ]
        source = triton.InferInput("pixels", [1, *pixels.shape], "UINT8")
        source.set_data_from_numpy(pixels[None])
        wanted = [triton.InferRequestedOutput("probabilities")]
        result = client.infer("tiny", [source], outputs=wanted, timeout=2_000_000)
        np.testing.assert_allclose(result.as_numpy("probabilities"), expected, rtol=1e-5)
        answers: queue.SimpleQueue[tuple[triton.InferResult, object]] = queue.SimpleQueue()
        client.async_infer("tiny", [source], lambda result, error: answers.put((result, error)))
        answer, error = answers.get(timeout=30)
        assert error is None
        np.testing.assert_allclose(answer.as_numpy("probabilities"), expected, rtol=1e-5)

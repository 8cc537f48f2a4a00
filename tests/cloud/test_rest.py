"""HTTP, to Triton's own client and to plain ones."""

import asyncio
import dataclasses
import gzip
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import numpy as np
import pytest
import tritonclient.http as triton  # type: ignore[import-untyped]
import tritonclient.http.aio as triton_aio  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from hybridge.cloud.config import CloudConfig
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared.codec import codec_by_name
from hybridge.shared.security import Address
from hybridge.shared.signing import SigningKey

from .bundles import CLASSES, SIZE, SidedModel, TinyModel, random_pixels, write_bundle
from .conftest import Cloud, run_cloud
from .test_bad_input import gated, inference_of, whole_stage
from .test_service import frame_of, whole


@pytest.fixture
def config(config: CloudConfig) -> CloudConfig:
    return dataclasses.replace(config, http=Address("127.0.0.1", 0), model_control=True)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def url_of(cloud: Cloud, path: str) -> str:
    return f"http://{cloud.server.sites['http']}{path}"


async def use(cloud: Cloud, check: Callable[[Any], None]) -> None:
    """Runs a check with Triton's client, in a thread as it blocks."""

    def run() -> None:
        with triton.InferenceServerClient(str(cloud.server.sites["http"])) as client:
            check(client)

    await asyncio.to_thread(run)


def picture(seed: int, *, binary: bool = True) -> Any:
    pixels = random_pixels(seed)
    source = triton.InferInput("pixels", [1, *pixels.shape], "UINT8")
    source.set_data_from_numpy(pixels[None], binary_data=binary)
    return source


def infer_json(seed: int = 0, **parameters: Any) -> dict[str, Any]:
    pixels = random_pixels(seed)
    source = {
        "name": "pixels", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.tolist(),
    }  # fmt: skip
    return {"id": "5", "inputs": [source], "parameters": parameters}


async def test_tritonclient_about_server_and_models(cloud: Cloud) -> None:
    def check(client: Any) -> None:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.is_model_ready("tiny", "1")
        assert not client.is_model_ready("tiny", "2")
        told = client.get_server_metadata()
        assert told["name"] == "hybridge-cloud"
        assert "binary_tensor_data" in told["extensions"]
        assert client.get_model_metadata("tiny") == {
            "name": "tiny",
            "versions": ["1"],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [-1, SIZE, SIZE, 3]}],
            "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, CLASSES]}],
        }
        client.infer("tiny", [picture(0)])
        for stats in (
            client.get_inference_statistics("tiny"),
            client.get_inference_statistics("tiny", "1"),
            client.get_inference_statistics(),
        ):
            (one,) = stats["model_stats"]
            assert one["inference_stats"]["success"]["count"] == 1
        with pytest.raises(InferenceServerException, match="unknown model"):
            client.get_model_metadata("other")

    await use(cloud, check)


async def test_tritonclient_infers_in_binary_and_in_json(cloud: Cloud) -> None:
    expected = await whole(cloud, random_pixels(0))

    def check(client: Any) -> None:
        for binary_in in (True, False):
            for outputs in (
                None,
                [triton.InferRequestedOutput("probabilities", binary_data=True)],
                [triton.InferRequestedOutput("probabilities", binary_data=False)],
            ):
                result = client.infer(
                    "tiny", [picture(0, binary=binary_in)], outputs=outputs, request_id="9",
                    timeout=2_000_000, parameters={"latency_budget_ms": 1500},
                )  # fmt: skip
                np.testing.assert_allclose(result.as_numpy("probabilities"), expected, rtol=1e-5)
                response = result.get_response()
                assert (response["model_name"], response["id"]) == ("tiny", "9")
                assert response["parameters"]["compute_ms"] > 0
        pending = client.async_infer("tiny", [picture(0)], model_version="1")
        np.testing.assert_allclose(
            pending.get_result().as_numpy("probabilities"), expected, rtol=1e-5
        )

    await use(cloud, check)


async def test_tritonclient_aio(cloud: Cloud) -> None:
    async with triton_aio.InferenceServerClient(str(cloud.server.sites["http"])) as client:
        assert await client.is_server_ready()
        result = await client.infer("tiny", [picture(0)])
    expected = await whole(cloud, random_pixels(0))
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, rtol=1e-5)


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
async def test_tritonclient_may_pack_its_requests(cloud: Cloud, packing: str) -> None:
    expected = await whole(cloud, random_pixels(0))

    def check(client: Any) -> None:
        for binary in (True, False):
            result = client.infer(
                "tiny", [picture(0, binary=binary)], request_compression_algorithm=packing,
                response_compression_algorithm=packing,
            )  # fmt: skip
            np.testing.assert_allclose(result.as_numpy("probabilities"), expected, rtol=1e-5)

    await use(cloud, check)


async def test_tritonclient_sends_frames_and_pictures(cloud: Cloud, model: TinyModel) -> None:
    pixels = random_pixels(1)
    frame = frame_of(model.head(pixels), contract=model.at_cut, codec="raw")
    encoded = codec_by_name("png", model.pixels).encode(pixels)
    expected = await whole(cloud, pixels)

    def check(client: Any) -> None:
        source = triton.InferInput("frame", [len(frame)], "UINT8")
        source.set_data_from_numpy(frame)
        split = client.infer("tiny", [source], parameters={"codec": "raw", "cut": "relu"})
        np.testing.assert_allclose(
            split.as_numpy("probabilities"), model.tail(model.head(pixels)), rtol=1e-4
        )
        shown = triton.InferInput("picture", [1], "BYTES")
        shown.set_data_from_numpy(np.array([encoded], object))
        result = client.infer("tiny", [shown])
        np.testing.assert_allclose(result.as_numpy("probabilities"), expected, rtol=1e-5)

    await use(cloud, check)


async def test_tritonclient_changes_the_repository(config: CloudConfig, key: SigningKey) -> None:
    write_bundle(config.bundles, key=key, name="other")
    async with run_cloud(config) as cloud:

        def check(client: Any) -> None:
            client.unload_model("other")
            assert not client.is_model_ready("other")
            states = {each["name"]: each["state"] for each in client.get_model_repository_index()}
            assert states == {"other": "UNAVAILABLE", "tiny": "READY"}
            client.load_model("other")
            assert client.is_model_ready("other")
            with pytest.raises(InferenceServerException, match="no parameter 'config'"):
                client.load_model("other", config="{}")

        await use(cloud, check)


async def test_inputs_beside_the_picture(config: CloudConfig, key: SigningKey) -> None:
    model = SidedModel()
    write_bundle(config.bundles, key=key, name="sided", model=model)
    async with run_cloud(config) as cloud:

        def check(client: Any) -> None:
            patient = triton.InferInput("patient", [1, 2], "FP32")
            patient.set_data_from_numpy(np.array([[1, 2]], np.float32), binary_data=False)
            site = triton.InferInput("site", [1], "INT64")
            site.set_data_from_numpy(np.array([2], np.int64))
            everything = client.infer("sided", [picture(0), patient, site])
            assert everything.as_numpy("embedding").shape == (1, 8)
            named = [triton.InferRequestedOutput("probabilities")]
            one = client.infer("sided", [picture(0), patient, site], outputs=named)
            assert one.as_numpy("embedding") is None

        await use(cloud, check)


async def test_a_model_that_cannot_answer_is_not_ready(
    cloud: Cloud, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = url_of(cloud, "/v2/models/tiny/ready")
    async with session.get(url) as response:
        assert (response.status, (await response.json())["ready"]) == (200, True)
    monkeypatch.setattr(type(whole_stage(cloud)), "ready", False)
    async with session.get(url) as response:
        assert (response.status, (await response.json())["ready"]) == (503, False)


async def test_any_http_client(cloud: Cloud, session: aiohttp.ClientSession) -> None:
    expected = await whole(cloud, random_pixels(0))
    url = url_of(cloud, "/v2/models/tiny/versions/1/infer")
    async with session.post(url, json=infer_json()) as response:
        assert (response.status, response.content_type) == (200, "application/json")
        told = await response.json()
    (output,) = told["outputs"]
    assert (output["name"], output["shape"]) == ("probabilities", [1, CLASSES])
    np.testing.assert_allclose([output["data"]], expected, rtol=1e-5)
    for path, status in (("/v2/health/live", 200), ("/v2/health/ready", 200), ("/v2", 200),
                         ("/v2/models/tiny/ready", 200), ("/v2/models/big/ready", 404),
                         ("/", 404), ("/v2/models/tiny/infer", 405)):  # fmt: skip
        async with session.get(url_of(cloud, path)) as response:
            assert response.status == status
            assert ("error" in await response.json()) == (status != 200)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"parameters": {"latency_budget_ms": 1e-3}}, 504, "forecast"),
        ({"parameters": {"timeout": 1}}, 504, "forecast"),
        ({"parameters": {"latency_budget_ms": "soon"}}, 400, "latency_budget_ms"),
        ({"parameters": {"cut": "other"}}, 400, "cut"),
        ({"inputs": []}, 400, "exactly one input"),
        ({"outputs": [{"name": "logits"}]}, 400, "logits"),
        (
            {"outputs": [{"name": "probabilities", "parameters": {"classification": 1}}]},
            400,
            "classification",
        ),
    ],
)
async def test_errors_have_the_status_of_the_table(
    cloud: Cloud,
    session: aiohttp.ClientSession,
    change: dict[str, Any],
    status: int,
    words: str,
) -> None:
    url = url_of(cloud, "/v2/models/tiny/infer")
    async with session.post(url, json=infer_json() | change) as response:
        assert response.status == status
        assert words in (await response.json())["error"]


async def test_a_contract_nobody_has_is_a_conflict(
    cloud: Cloud, session: aiohttp.ClientSession
) -> None:
    stranger = TinyModel(seed=9)
    frame = frame_of(stranger.head(random_pixels(0)), contract=stranger.at_cut, codec="raw")
    source = {"name": "frame", "datatype": "UINT8", "shape": [len(frame)], "data": frame.tolist()}
    url = url_of(cloud, "/v2/models/tiny/infer")
    async with session.post(url, json={"inputs": [source]}) as response:
        assert response.status == 409


async def test_a_full_queue_is_unavailable(
    config: CloudConfig, session: aiohttp.ClientSession
) -> None:
    small = dataclasses.replace(config, instances=1, queue_limit=1)
    async with run_cloud(small) as cloud, gated(whole_stage(cloud)) as gate:
        url = url_of(cloud, "/v2/models/tiny/infer")

        async def infer() -> int:
            async with session.post(url, json=infer_json()) as response:
                return response.status

        calls = [asyncio.ensure_future(infer()) for _ in range(4)]
        done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 2:
            more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        gate.allowed.set()
        assert sorted([await call for call in calls]) == [200, 200, 503, 503]


async def test_who_hangs_up_is_not_computed_for(
    config: CloudConfig, session: aiohttp.ClientSession
) -> None:
    one = dataclasses.replace(config, instances=1)
    async with run_cloud(one) as cloud, gated(whole_stage(cloud)) as gate:
        works = inference_of(cloud).worker._works
        url = url_of(cloud, "/v2/models/tiny/infer")
        calls = [asyncio.ensure_future(session.post(url, json=infer_json())) for _ in range(2)]
        while len(works) < 2:
            await cloud.stub.ServerLive(pb.ServerLiveRequest())
        for call in calls:
            call.cancel()
        while works:
            await cloud.stub.ServerLive(pb.ServerLiveRequest())
        gate.allowed.set()


async def test_shutdown_finishes_what_was_accepted(
    config: CloudConfig, session: aiohttp.ClientSession
) -> None:
    one = dataclasses.replace(config, instances=1)
    async with run_cloud(one) as cloud, gated(whole_stage(cloud)) as gate:
        url = url_of(cloud, "/v2/models/tiny/infer")
        calls = [asyncio.ensure_future(session.post(url, json=infer_json())) for _ in range(3)]
        while len(inference_of(cloud).worker._works) < 3:
            await cloud.stub.ServerLive(pb.ServerLiveRequest())
        stopping = asyncio.ensure_future(cloud.server.shutdown())
        gate.allowed.set()
        for response in await asyncio.gather(*calls):
            assert response.status == 200
        await stopping
        with pytest.raises(aiohttp.ClientError):
            await session.get(url_of(cloud, "/v2"))


async def test_not_before_the_models_are_there(
    config: CloudConfig, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_cloud(config) as cloud:
        front = cloud.server._front
        assert front is not None
        monkeypatch.setattr(front, "now", None)
        for path in ("/v2/health/ready", "/v2/models/tiny", "/v2/models/tiny/ready"):
            async with session.get(url_of(cloud, path)) as response:
                assert response.status == 503
        async with session.get(url_of(cloud, "/v2/health/live")) as response:
            assert response.status == 200
        url = url_of(cloud, "/v2/models/tiny/infer")
        async with session.post(url, json=infer_json()) as response:
            assert response.status == 503
            assert "loaded" in (await response.json())["error"]


async def test_packed_bodies_are_bounded(
    cloud: Cloud, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = url_of(cloud, "/v2/models/tiny/infer")
    good = gzip.compress(json.dumps(infer_json()).encode())

    async def status(body: bytes, encoding: str = "gzip") -> int:
        headers = {"Content-Encoding": encoding}
        async with session.post(url, data=body, headers=headers) as response:
            assert response.status == 200 or "error" in await response.json()
            return response.status

    assert await status(good) == 200
    assert await status(good[:-9]) == 400
    assert await status(good + b"more") == 400
    assert await status(b"not packed") == 400
    assert await status(good, "zip") == 415
    monkeypatch.setattr("hybridge.cloud.web.MAX_MESSAGE_BYTES", 1 << 16)
    assert await status(gzip.compress(bytes(1 << 20))) == 413
    assert await status(good) == 200


async def test_statistics_count_what_came_by_http(
    cloud: Cloud, session: aiohttp.ClientSession
) -> None:
    url = url_of(cloud, "/v2/models/tiny/infer")
    async with session.post(url, json=infer_json()):
        pass
    async with session.post(url, data=b"{"):
        pass
    async with session.post(url_of(cloud, "/v2/models/guess/infer"), data=b"{"):
        pass
    figures = inference_of(cloud).statistics.of("tiny", "1")
    assert figures.codes == {"OK": 1, "INVALID_ARGUMENT": 1}

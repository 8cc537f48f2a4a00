"""SageMaker's contract, to the AWS SDK's own runtime client and to plain ones."""

import asyncio
import dataclasses
import io
import json
from collections.abc import AsyncIterator

import aiohttp
import numpy as np
import pytest
from PIL import Image

from hybridge.cloud.config import CloudConfig
from hybridge.cloud.resize import prepare
from hybridge.cloud.sagemaker import CUSTOM_ATTRIBUTES
from hybridge.shared.picture import decode_picture
from hybridge.shared.preprocess import PreprocessSpec
from hybridge.shared.security import Address
from hybridge.shared.signing import SigningKey

from .bundles import CLASSES, SIZE, random_pixels, write_bundle
from .conftest import Cloud, run_cloud
from .test_priorities import recorded_ranks
from .test_rest import infer_json
from .test_service import whole

BINARY = "application/vnd.sagemaker-triton.binary+json"


@pytest.fixture
def config(config: CloudConfig) -> CloudConfig:
    return dataclasses.replace(config, sagemaker=Address("127.0.0.1", 0))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def url_of(cloud: Cloud, path: str) -> str:
    return f"http://{cloud.server.sites['sagemaker']}{path}"


def jpeg(seed: int = 0, *, height: int = 60, width: int = 80) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 250, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def binary_body(seed: int = 0) -> tuple[bytes, str]:
    pixels = random_pixels(seed)
    source = {
        "name": "pixels", "datatype": "UINT8", "shape": list(pixels.shape),
        "parameters": {"binary_data_size": pixels.size},
    }  # fmt: skip
    header = json.dumps({"inputs": [source], "parameters": {"binary_data_output": True}}).encode()
    return header + pixels.tobytes(), f"{BINARY};json-header-size={len(header)}"


async def test_the_sdk_is_served(cloud: Cloud) -> None:
    boto3 = pytest.importorskip("boto3")
    pixels = random_pixels(0)
    expected = await whole(cloud, pixels)

    def check() -> None:
        from botocore.config import Config

        client = boto3.client(
            "sagemaker-runtime",
            endpoint_url=url_of(cloud, ""),
            region_name="eu-central-1",
            aws_access_key_id="anyone",
            aws_secret_access_key="anything",
            config=Config(retries={"total_max_attempts": 1}),
        )

        def invoke(body: bytes, content_type: str, **more: str) -> tuple[bytes, str]:
            answer = client.invoke_endpoint(
                EndpointName="endpoint", Body=body, ContentType=content_type, **more
            )
            return answer["Body"].read(), answer["ContentType"]

        body, kind = invoke(json.dumps(infer_json()).encode(), "application/json")
        assert kind.startswith("application/json")
        np.testing.assert_allclose([json.loads(body)["outputs"][0]["data"]], expected, rtol=1e-5)

        body, kind = invoke(*binary_body())
        name, _, size = kind.partition(";json-header-size=")
        assert name == BINARY
        values = np.frombuffer(body[int(size) :], "<f4")
        np.testing.assert_allclose([values], expected, rtol=1e-5)

        body, _ = invoke(
            jpeg(),
            "image/jpeg",
            TargetModel="tiny/1",
            CustomAttributes="latency_budget_ms=3000, priority=1",
        )
        assert json.loads(body)["labels"][0].startswith("class ")

        with pytest.raises(client.exceptions.ClientError) as caught:
            invoke(b"{", "application/json")
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        assert "not the JSON of an inference request" in str(caught.value)
        client.close()

    await asyncio.to_thread(check)


@pytest.mark.parametrize("content_type", ["image/jpeg", "application/x-image"])
async def test_pictures_become_labels(
    cloud: Cloud, session: aiohttp.ClientSession, content_type: str
) -> None:
    encoded = jpeg()
    ready = prepare(decode_picture(encoded), PreprocessSpec(size_px=SIZE))
    expected = (await whole(cloud, ready))[0]
    headers = {"Content-Type": content_type}
    async with session.post(url_of(cloud, "/invocations"), data=encoded, headers=headers) as made:
        assert made.status == 200
        answer = await made.json()
    order = np.argsort(-expected, kind="stable")
    assert answer["labels"] == [f"class {at}" for at in order]
    np.testing.assert_allclose(answer["probabilities"], expected[order], rtol=1e-5)
    assert (answer["model_name"], answer["model_version"]) == ("tiny", "1")
    assert len(answer["labels"]) == CLASSES


async def test_a_picture_has_a_priority(cloud: Cloud, session: aiohttp.ClientSession) -> None:
    ranks = recorded_ranks(cloud)
    for attributes in ("", "priority=1", "latency_budget_ms=60000;priority=7"):
        headers = {"Content-Type": "image/jpeg", CUSTOM_ATTRIBUTES: attributes}
        async with session.post(
            url_of(cloud, "/invocations"), data=jpeg(), headers=headers
        ) as response:
            assert response.status == 200
    assert ranks == [0, -4, 2]


async def test_ping_follows_the_models(
    cloud: Cloud, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with session.get(url_of(cloud, "/ping")) as response:
        assert response.status == 200
    front = cloud.server._front
    assert front is not None
    monkeypatch.setattr(front, "now", None)
    async with session.get(url_of(cloud, "/ping")) as response:
        assert response.status == 503
    async with session.post(url_of(cloud, "/invocations"), json=infer_json()) as response:
        assert response.status == 503


async def test_of_several_models_one_is_named(
    config: CloudConfig, key: SigningKey, session: aiohttp.ClientSession
) -> None:
    write_bundle(config.bundles, key=key, name="other")
    async with run_cloud(config) as cloud:
        url = url_of(cloud, "/invocations")
        async with session.post(url, json=infer_json()) as response:
            assert response.status == 400
            assert "other, tiny" in (await response.json())["error"]
        for target, status in (("other", 200), ("tiny/1", 200), ("tiny/2", 404), ("none", 404)):
            headers = {"X-Amzn-SageMaker-Target-Model": target}
            async with session.post(url, json=infer_json(), headers=headers) as response:
                assert response.status == status


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "text/csv"}, b"1,2", 415),
        ({"Content-Type": BINARY}, b"{}", 415),
        ({"Content-Type": "image/jpegs"}, b"", 415),
        ({"Content-Type": f"{BINARY};json-header-size=-1"}, b"{}", 415),
        ({"Content-Type": f"{BINARY};json-header-size=999"}, b"{}", 400),
        ({"Content-Type": "image/jpeg"}, b"no picture", 400),
        ({"Content-Type": "image/jpeg"}, b"", 400),
        ({"Content-Type": "application/json"}, b"\xff", 400),
        (
            {"Content-Type": "image/jpeg", "X-Amzn-SageMaker-Custom-Attributes": "color=red"},
            b"",
            400,
        ),
        (
            {"Content-Type": "image/jpeg", "X-Amzn-SageMaker-Custom-Attributes": "priority=11"},
            jpeg(),
            400,
        ),
        (
            {
                "Content-Type": "image/jpeg",
                "X-Amzn-SageMaker-Custom-Attributes": "latency_budget_ms=0.001",
            },
            jpeg(),
            504,
        ),
    ],
)
async def test_bad_invocations(
    cloud: Cloud,
    session: aiohttp.ClientSession,
    headers: dict[str, str],
    body: bytes,
    status: int,
) -> None:
    async with session.post(url_of(cloud, "/invocations"), data=body, headers=headers) as response:
        assert response.status == status
        assert (await response.json())["error"]

"""A large model that another server holds: here another of our clouds, as any server of the OIP."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from hybridge.cloud.config import CloudConfig
from hybridge.cloud.remote import RemoteUrl
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip
from hybridge.shared.errors import ConfigError
from hybridge.shared.security import Address
from hybridge.shared.signing import SigningKey, TrustStore

from .bundles import TinyModel, random_pixels, write_bundle
from .conftest import Cloud, run_cloud
from .named_models import SCALE_CONFIG, write_config, write_scale
from .test_bad_input import gated, inference_of
from .test_priorities import recorded_ranks
from .test_service import frame_of, probabilities, request_of

Code = grpc.StatusCode
X = np.arange(6, dtype=np.float32).reshape(2, 3)
Y = np.array([[10], [20]], np.int64)
HERE = Address("127.0.0.1", 0)


def far_config(tmp_path: Path, trust: TrustStore, *, address: Address = HERE) -> CloudConfig:
    root = tmp_path / "far"
    if not root.exists():
        write_scale(root / "scale" / "1")
        write_config(root / "scale", SCALE_CONFIG)
        (root / "scale" / "labels.txt").write_text("one\ntwo\nthree\n")
    return CloudConfig(
        bundles=root / "none", model_repository=root, trust=trust, address=address, instances=2,
        model_control=True,
    )  # fmt: skip


def near_config(tmp_path: Path, trust: TrustStore, url: str, *, more: str = "") -> CloudConfig:
    root = tmp_path / "near"
    (root / "scale" / "1").mkdir(parents=True)
    text = 'backend: "hybridge_remote" parameters { key: "url" value: { string_value: "%s" } } %s'
    write_config(root / "scale", text % (url, more))
    return CloudConfig(
        bundles=root / "none", model_repository=root, trust=trust, address=HERE, instances=2
    )


@dataclasses.dataclass(frozen=True)
class Pair:
    near: Cloud
    far: Cloud


@pytest.fixture
async def pair(tmp_path: Path, trust: TrustStore) -> AsyncIterator[Pair]:
    async with both(tmp_path, trust) as pair:
        yield pair


@asynccontextmanager
async def both(tmp_path: Path, trust: TrustStore) -> AsyncIterator[Pair]:
    async with run_cloud(far_config(tmp_path, trust)) as far:
        url = f"grpc://{far.address}/scale"
        async with run_cloud(near_config(tmp_path, trust, url)) as near:
            yield Pair(near, far)


def request(**parameters: oip.Value) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name="scale")
    oip.add_input(made, "x", X)
    oip.add_input(made, "y", Y)
    oip.set_parameters(made.parameters, parameters)
    return made


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(100):
        while not await condition():
            pass


async def check_serves(cloud: Cloud) -> None:
    response = await cloud.stub.ModelInfer(request(), timeout=60)
    np.testing.assert_array_equal(oip.output_array(response, "scaled"), X * 2 + Y)


async def fails(cloud: Cloud, code: Code, *words: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.stub.ModelInfer(request(), timeout=60)
    assert caught.value.code() is code, caught.value.details()
    for word in words:
        assert word in str(caught.value.details())


async def test_passes_tensors_on_and_is_completed_by_what_the_far_side_says(pair: Pair) -> None:
    await check_serves(pair.near)
    about = (await pair.near.stub.ModelConfig(pb.ModelConfigRequest(name="scale"))).config
    assert about.backend == "hybridge_remote"
    assert about.max_batch_size == 8
    assert [list(each.dims) for each in about.input] == [[3], [1]]
    assert [each.name for each in about.output] == ["scaled"]
    ready = await pair.near.stub.ModelReady(pb.ModelReadyRequest(name="scale"))
    assert ready.ready


LEVELS = "dynamic_batching { priority_levels: %d default_priority_level: %d }"


@pytest.mark.parametrize(
    ("far_levels", "ranks"), [(LEVELS % (3, 2), [0, -1, -1, 1, 1]), ("", [0, 0, 0, 0, 0])]
)
async def test_the_priority_goes_along_to_who_has_levels(
    tmp_path: Path, trust: TrustStore, far_levels: str, ranks: list[int]
) -> None:
    """As many levels from the default, or as many as there are."""
    far_at = far_config(tmp_path, trust)
    write_config(tmp_path / "far" / "scale", f"max_batch_size: 8 {far_levels}")
    async with run_cloud(far_at) as far:
        url = f"grpc://{far.address}/scale"
        more = f"max_batch_size: 8 {LEVELS % (9, 5)}"
        async with run_cloud(near_config(tmp_path, trust, url, more=more)) as near:
            seen = recorded_ranks(far)
            for priority in (0, 4, 1, 6, 9):
                await near.stub.ModelInfer(request(priority=priority), timeout=60)
            assert seen == ranks


async def test_the_deadline_goes_along_and_ends_the_far_call(pair: Pair) -> None:
    far = inference_of(pair.far)
    async with gated(far.repository.model("scale").whole) as gate:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pair.near.stub.ModelInfer(request(latency_budget_ms=300.0), timeout=60)
        assert caught.value.code() is Code.DEADLINE_EXCEEDED
        await until(lambda: idle(pair.far))
        gate.allowed.set()
    await check_serves(pair.near)


async def idle(cloud: Cloud) -> bool:
    await cloud.stub.ServerLive(pb.ServerLiveRequest())
    return inference_of(cloud).statistics.in_flight == 0


async def test_who_leaves_takes_the_far_call_along(pair: Pair) -> None:
    async with gated(inference_of(pair.far).repository.model("scale").whole) as gate:
        call = asyncio.ensure_future(pair.near.stub.ModelInfer(request(), timeout=60))
        assert await asyncio.to_thread(gate.entered.acquire, timeout=30)
        call.cancel()
        await until(lambda: idle(pair.far))
        await until(lambda: all_free(pair.near))
        gate.allowed.set()
    await check_serves(pair.near)


async def all_free(cloud: Cloud) -> bool:
    await cloud.stub.ServerLive(pb.ServerLiveRequest())
    return inference_of(cloud).worker.running == 0


async def test_a_far_side_that_goes_and_comes_back(tmp_path: Path, trust: TrustStore) -> None:
    async with run_cloud(far_config(tmp_path, trust)) as first:
        address = first.address
        near_at = near_config(tmp_path, trust, f"grpc://{address}/scale")
        async with run_cloud(near_at) as cloud:
            await check_serves(cloud)
            await first.server.shutdown()
            await fails(cloud, Code.UNAVAILABLE, "remote unavailable", f"grpc://{address}/scale")
            async with run_cloud(far_config(tmp_path, trust, address=address)):
                await until(lambda: serves(cloud))
                told = await cloud.stub.ModelReady(pb.ModelReadyRequest(name="scale"))
                assert told.ready


async def serves(cloud: Cloud) -> bool:
    return await cloud.stub.ModelInfer(request(), timeout=60).code() is Code.OK


async def test_a_far_side_that_refuses_is_quoted(pair: Pair) -> None:
    await pair.far.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="scale"))
    await fails(pair.near, Code.UNAVAILABLE, "remote refused", "NOT_FOUND", "unknown model")


async def test_nobody_there_at_the_start(tmp_path: Path, trust: TrustStore) -> None:
    async with run_cloud(far_config(tmp_path, trust)) as far:
        pass
    config = near_config(tmp_path, trust, f"grpc://{far.address}/scale")
    with pytest.raises(ConfigError, match=f"grpc://{far.address}/scale"):
        async with run_cloud(config):
            pass


async def test_another_model_than_was_said(tmp_path: Path, trust: TrustStore) -> None:
    async with run_cloud(far_config(tmp_path, trust)) as far:
        url = f"grpc://{far.address}/scale"
        more = 'input [ { name: "z" data_type: TYPE_FP32 dims: [3] } ]'
        with pytest.raises(ConfigError, match="no input 'z'"):
            async with run_cloud(near_config(tmp_path, trust, url, more=more)):
                pass


async def test_the_whole_of_a_bundle_is_computed_there(
    tmp_path: Path, key: SigningKey, trust: TrustStore, config: CloudConfig, model: TinyModel
) -> None:
    async with run_cloud(config) as far:
        url = RemoteUrl.parse(f"grpc://{far.address}/tiny/1")
        pixels = random_pixels(3)
        expected = probabilities(await far.stub.ModelInfer(request_of("pixels", pixels)))
        near_at = dataclasses.replace(config, remotes={"tiny": url})
        async with run_cloud(near_at) as near:
            before = inference_of(far).statistics.of("tiny", "1").items
            answer = await near.stub.ModelInfer(request_of("pixels", pixels), timeout=60)
            np.testing.assert_allclose(probabilities(answer), expected, rtol=1e-5)
            assert inference_of(far).statistics.of("tiny", "1").items == before + 1
            tensor = model.head(pixels)  # tails are computed here
            frame = frame_of(tensor, contract=model.at_cut, codec="raw")
            answer = await near.stub.ModelInfer(request_of("frame", frame), timeout=60)
            np.testing.assert_allclose(probabilities(answer), model.tail(tensor), rtol=1e-4)
        small = dataclasses.replace(near_at, max_batch=9)
        with pytest.raises(ConfigError, match="takes 8 items"):
            async with run_cloud(small):
                pass
        other = tmp_path / "other"
        write_bundle(other, key=key, answer=np.roll(expected[0], 1))
        with pytest.raises(ConfigError, match="off its golden one"):
            async with run_cloud(dataclasses.replace(near_at, bundles=other)):
                pass


@pytest.mark.parametrize(
    "text",
    ["", "http://h:1/m", "grpc://h:1", "grpc://h:1/a/1/x", "grpc://h/m", "grpc://h:1/m?x=1"],
)
def test_urls_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError):
        RemoteUrl.parse(text)


def test_urls() -> None:
    url = RemoteUrl.parse("grpcs://[::1]:8001/model/3")
    assert (url.address, url.model, url.version, url.tls) == (
        Address("::1", 8001),
        "model",
        "3",
        True,
    )
    assert str(url) == "grpcs://[::1]:8001/model/3"
    assert str(RemoteUrl.parse("grpc://a.b:1/m")) == "grpc://a.b:1/m"

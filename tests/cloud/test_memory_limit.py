"""A cloud whose models are loaded when they are called, in this process, over gRPC."""

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import numpy as np
import pytest

from hybridge.cloud import limits
from hybridge.cloud.config import CloudConfig
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared.errors import ConfigError
from hybridge.shared.manifest import Runtime
from hybridge.shared.security import Address
from hybridge.shared.signing import SigningKey

from .bundles import CUT, TinyModel, random_pixels, write_bundle
from .conftest import Cloud, run_cloud
from .deep import DeepModel
from .test_metrics import scrape
from .test_service import frame_of, probabilities, request_of

MIB = 1 << 20


@pytest.fixture(scope="module")
def deep_bundles(tmp_path_factory: pytest.TempPathFactory, key: SigningKey) -> Path:
    """Three deep models of 18 MiB, which ONNX Runtime may take 37 for, and a tiny one."""
    root = tmp_path_factory.mktemp("deep")
    for seed, name in enumerate("abc"):
        write_bundle(root, key=key, name=name, model=DeepModel(seed=seed))
    write_bundle(root, key=key, name="tiny")
    return root


@pytest.fixture
def deep(deep_bundles: Path, config: CloudConfig, monkeypatch: pytest.MonkeyPatch) -> CloudConfig:
    """A cloud of these, in a process that takes nothing for itself."""
    monkeypatch.setattr(limits, "resident_bytes", lambda: 0)
    return dataclasses.replace(config, bundles=deep_bundles, metrics=Address("127.0.0.1", 0))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(cloud: Cloud, name: str, seed: int = 0) -> list[float]:
    request = request_of("pixels", random_pixels(seed), model=name, latency_budget_ms=600_000.0)
    found: list[float] = probabilities(await cloud.stub.ModelInfer(request))[0].tolist()
    return found


def resident(cloud: Cloud) -> set[str]:
    assert cloud.server._loader is not None
    return {name for (name, _), _ in cloud.server._loader.residence.resident()}


async def test_nothing_is_loaded_before_it_is_called(
    deep: CloudConfig, session: aiohttp.ClientSession
) -> None:
    async with run_cloud(dataclasses.replace(deep, idle_unload_s=3600.0)) as cloud:
        assert (await cloud.stub.ServerReady(pb.ServerReadyRequest())).ready
        assert (await cloud.stub.ModelReady(pb.ModelReadyRequest(name="a"))).ready
        metadata = await cloud.stub.ModelMetadata(pb.ModelMetadataRequest(name="a"))
        assert [each.name for each in metadata.inputs] == ["pixels"]
        index = await cloud.stub.RepositoryIndex(pb.RepositoryIndexRequest())
        assert {each.state for each in index.models} == {"READY"}
        await cloud.stub.ModelStatistics(pb.ModelStatisticsRequest(name="a"))
        before = await scrape(cloud, session)
        assert before["hybridge_resident_models{}"] == 0
        assert before["hybridge_load_duration_seconds_count{model=a,version=1}"] == 0
        assert resident(cloud) == set()
        answers = await asyncio.gather(*(ask(cloud, "a") for _ in range(4)))
        assert all(answer == answers[0] for answer in answers)
        after = await scrape(cloud, session)
        assert after["hybridge_resident_models{}"] == 1
        assert after["hybridge_resident_bytes{model=a,version=1}"] >= 18 * MIB
        assert after["hybridge_load_duration_seconds_count{model=a,version=1}"] == 1


async def test_a_tail_is_loaded_without_the_whole(deep: CloudConfig) -> None:
    model = TinyModel()
    async with run_cloud(dataclasses.replace(deep, idle_unload_s=3600.0)) as cloud:
        tensor = model.head(random_pixels(0))
        frame = frame_of(tensor, contract=model.at_cut, codec="affine8")
        await cloud.stub.ModelInfer(request_of("frame", frame, latency_budget_ms=600_000.0))
        assert cloud.server._loader is not None
        ready = {key.cut for key, stage in cloud.server._loader._stages.items() if stage.loaded}
        assert ready == {CUT}


async def test_the_least_recently_called_makes_room(
    deep: CloudConfig, session: aiohttp.ClientSession
) -> None:
    config = dataclasses.replace(deep, memory_limit_bytes=100 * MIB)
    async with run_cloud(config) as cloud:
        first = {name: await ask(cloud, name) for name in "abc"}
        assert resident(cloud) <= {"b", "c"}
        for name in "acb":
            assert await ask(cloud, name) == first[name]
        figures = await scrape(cloud, session)
        assert figures["hybridge_resident_limit_bytes{}"] == 100 * MIB
        assert figures["hybridge_evictions_total{model=a,reason=memory,version=1}"] >= 1


async def test_an_idle_model_leaves_and_is_called_again(deep: CloudConfig) -> None:
    async with run_cloud(dataclasses.replace(deep, idle_unload_s=0.05)) as cloud:
        first = await ask(cloud, "tiny")
        async with asyncio.timeout(60):
            while True:
                if not resident(cloud):
                    break
                await asyncio.sleep(0.01)
        assert await ask(cloud, "tiny") == first


async def test_a_model_larger_than_its_memory_answers_the_same(
    deep: CloudConfig, caplog: pytest.LogCaptureFixture
) -> None:
    by_torch = dataclasses.replace(deep, runtime=Runtime.TORCH)
    async with run_cloud(by_torch) as cloud:
        wanted = [await ask(cloud, "a", seed) for seed in range(3)]
        by_torch_alone = await ask(cloud, "tiny")
    short = dataclasses.replace(deep, memory_limit_bytes=12 * MIB)
    with caplog.at_level(logging.WARNING):
        async with run_cloud(short) as cloud:
            assert [await ask(cloud, "a", seed) for seed in range(3)] == wanted
            assert resident(cloud) == {"a"}
            np.testing.assert_allclose(await ask(cloud, "tiny"), by_torch_alone, rtol=1e-5)
            assert await ask(cloud, "a") == wanted[0]
            metadata = await cloud.stub.ModelMetadata(pb.ModelMetadataRequest(name="a"))
            assert metadata.platform == "pytorch_libtorch"
    said = [record.getMessage() for record in caplog.records if "does not fit" in record.message]
    assert {line.split("/")[0] for line in said} == {"a", "b", "c"}
    assert all("are read for every run" in line and " times the " in line for line in said)


async def test_less_than_a_layer_leaves_the_others_alone(
    deep: CloudConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with run_cloud(dataclasses.replace(deep, memory_limit_bytes=2 * MIB)) as cloud:
            assert "a/1/whole cannot be loaded: its largest layer takes 2.25 MiB" in caplog.text
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(cloud, "a")
            assert "raise --memory-limit" in (caught.value.details() or "")
            assert len(await ask(cloud, "tiny")) == 5


async def test_onnx_runtime_does_not_serve_what_does_not_fit(
    deep: CloudConfig, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataclasses.replace(deep, memory_limit_bytes=12 * MIB, runtime=Runtime.ONNXRUNTIME)
    with caplog.at_level(logging.WARNING):
        async with run_cloud(config) as cloud:
            assert "ONNX Runtime needs all of them in memory" in caplog.text
            assert len(await ask(cloud, "tiny")) == 5


async def test_a_model_whose_load_fails_is_tried_again(
    bundles: Path, key: SigningKey, config: CloudConfig, tmp_path: Path
) -> None:
    path = write_bundle(bundles, key=key, name="other", model=TinyModel(seed=3))
    weights = max((path / "blobs").iterdir(), key=lambda file: file.stat().st_size)
    async with run_cloud(dataclasses.replace(config, idle_unload_s=3600.0)) as cloud:
        aside = weights.rename(tmp_path / "aside")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(cloud, "other")
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "cannot be loaded" in (caught.value.details() or "")
        assert len(await ask(cloud, "tiny")) == 5
        aside.rename(weights)
        async with asyncio.timeout(60):
            while True:
                try:
                    assert len(await ask(cloud, "other")) == 5
                    break
                except grpc.aio.AioRpcError:  # not tried again yet
                    await asyncio.sleep(0.05)


async def test_preloading_tries_everything_once(deep: CloudConfig) -> None:
    config = dataclasses.replace(deep, memory_limit_bytes=100 * MIB, preload=True)
    async with run_cloud(config) as cloud:
        assert cloud.server._loader is not None
        stages = cloud.server._loader._stages.values()
        assert len(stages) == 8
        assert all(stage.known_cost is not None for stage in stages)
        assert resident(cloud)


async def test_models_are_loaded_and_unloaded_on_request_too(deep: CloudConfig) -> None:
    config = dataclasses.replace(deep, idle_unload_s=3600.0, model_control=True)
    async with run_cloud(config) as cloud:
        for _ in range(2):
            await cloud.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="a"))
            assert not (await cloud.stub.ModelReady(pb.ModelReadyRequest(name="a"))).ready
            await cloud.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="a"))
            assert resident(cloud) == {"a"}
            assert len(await ask(cloud, "a")) == 5


def test_a_limit_below_what_the_server_takes(config: CloudConfig) -> None:
    with pytest.raises(ConfigError, match=r"the server itself takes .* allows 1 MiB; raise it"):
        limits.limits_of(dataclasses.replace(config, memory_limit_bytes=MIB))


@pytest.mark.parametrize("wrong", [{"memory_limit_bytes": 0}, {"idle_unload_s": 0.0}])
def test_limits_that_cannot_work(config: CloudConfig, wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"no model fits|idle_unload_s must be above 0"):
        dataclasses.replace(config, **wrong)  # type: ignore[arg-type]

"""A cloud whose batches are computed by processes beneath it, seen from outside."""

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import numpy as np
import pytest

from hybridge.cloud.config import CloudConfig, Engine
from hybridge.cloud.executors.pool import ReplicaPool
from hybridge.protos import open_inference_pb2 as pb
from hybridge.protos.oip import Stub
from hybridge.shared import oip
from hybridge.shared.cores import usable_cores
from hybridge.shared.errors import ConfigError
from hybridge.shared.security import Address, Security
from hybridge.shared.signing import SigningKey

from .bundles import CLASSES, TinyModel, random_pixels, write_bundle
from .conftest import Cloud, run_cloud
from .executors.conftest import pids, stop_all, until
from .named_models import write_fill
from .test_bad_input import inference_of
from .test_service import frame_of, probabilities, request_of

DAEMON = """
import asyncio, sys
from pathlib import Path
from hybridge.cloud.config import CloudConfig
from hybridge.cloud.server import serve
from hybridge.shared.security import Address
from hybridge.shared.signing import TrustStore
config = CloudConfig(bundles=Path(sys.argv[1]), trust=TrustStore(frozenset({sys.argv[2]})),
                     address=Address("127.0.0.1", 0), instances=1, workers=1)
asyncio.run(serve(config, on_listening=lambda address: print(address, flush=True)))
"""


@pytest.fixture
def config(config: CloudConfig) -> CloudConfig:
    return dataclasses.replace(
        config,
        workers=2,
        instances=1,
        max_batch=2,
        preload=True,
        model_control=True,
        metrics=Address("127.0.0.1", 0),
    )


@pytest.fixture
async def cloud(config: CloudConfig) -> AsyncIterator[Cloud]:
    async with run_cloud(config) as running:
        yield running


def pool_of(cloud: Cloud) -> ReplicaPool:
    pool = inference_of(cloud).worker.executor
    assert isinstance(pool, ReplicaPool)
    return pool


async def test_every_form_of_a_request_is_answered(cloud: Cloud, model: TinyModel) -> None:
    pixels = np.stack([random_pixels(seed) for seed in range(2)])
    tensor = model.head(pixels[0])
    frames = [
        frame_of(tensor, contract=model.at_cut, codec="affine8"),
        frame_of(pixels[0], contract=model.pixels, codec="png"),
    ]
    requests = [request_of("pixels", pixels), *(request_of("frame", each) for each in frames)]
    calls = [cloud.stub.ModelInfer(each, timeout=60) for each in requests]
    whole, tail, png = [probabilities(await call) for call in calls]
    np.testing.assert_allclose(png, whole[:1], rtol=1e-5)
    assert whole.shape == (2, CLASSES)
    assert tail.shape == (1, CLASSES)


async def test_models_come_and_go_in_all_of_them(
    cloud: Cloud, config: CloudConfig, key: SigningKey
) -> None:
    write_bundle(config.bundles, key=key, version="2", model=TinyModel(seed=1))
    await cloud.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="tiny"))
    await all_hold_what_is_served(cloud)
    pool = pool_of(cloud)
    asked = [request_of("pixels", random_pixels(seed), version="2") for seed in range(4)]
    for response in await asyncio.gather(*(cloud.stub.ModelInfer(each) for each in asked)):
        assert response.model_version == "2"
    await cloud.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="tiny"))
    assert [seat.places for seat in pool._seats] == [set(), set()]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cloud.stub.ModelInfer(asked[0])
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def all_hold_what_is_served(cloud: Cloud) -> None:
    pool = pool_of(cloud)
    served = {opened.place for opened in pool._opened.values()}
    await until(lambda: all(seat.places == served for seat in pool._seats))


async def test_metrics_are_those_of_all(cloud: Cloud) -> None:
    calls = [
        cloud.stub.ModelInfer(request_of("pixels", random_pixels(seed)), timeout=60)
        for seed in range(8)
    ]
    await asyncio.gather(*calls)
    url = f"http://{cloud.server.sites['metrics']}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        text = await response.text()
    assert 'hybridge_requests_total{code="OK",model="tiny",version="1"} 8.0' in text
    assert 'hybridge_workers{state="ready"} 2.0' in text
    assert "hybridge_worker_deaths_total 0.0" in text
    for name in ("worker 1", "worker 2"):
        assert f'hybridge_worker_resident_bytes{{worker="{name}"}}' in text
        assert f'hybridge_worker_cpu_seconds_total{{worker="{name}"}}' in text


async def test_shutdown_finishes_what_they_compute(cloud: Cloud) -> None:
    pool, worker = pool_of(cloud), inference_of(cloud).worker
    await stop_all(pool)
    full = np.stack([random_pixels(seed) for seed in range(2)])  # two of these are no one batch
    requests = [request_of("pixels", full) for _ in range(3)]
    calls = [asyncio.ensure_future(cloud.stub.ModelInfer(each)) for each in requests]
    await until(lambda: worker.running == 2)
    processes = pids(pool)
    stopping = asyncio.ensure_future(cloud.server.shutdown())
    for pid in processes:
        os.kill(pid, signal.SIGCONT)
    for response in await asyncio.gather(*calls):
        assert probabilities(response).shape == (2, CLASSES)
    await stopping
    assert all(_ended(pid) for pid in processes)


async def test_they_end_with_a_cloud_that_is_killed(bundles: Path, key: SigningKey) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DAEMON, str(bundles), key.public_hex, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    address = Address.parse((await process.stdout.readline()).decode().strip())
    async with Security().channel(address) as channel:
        await Stub(channel).ModelInfer(request_of("pixels", random_pixels(0)), timeout=60)
    (child,) = _children(process.pid)
    process.kill()
    await process.wait()
    await until(lambda: _ended(child))


def _children(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in children.split()]


def _ended(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(") ")[2][0] == "Z"


async def test_more_than_there_are_cores_is_warned_of(
    config: CloudConfig, caplog: pytest.LogCaptureFixture
) -> None:
    instances = usable_cores() + 1
    async with run_cloud(dataclasses.replace(config, workers=1, instances=instances)):
        assert f"1 workers of {instances} instances compute on" in caplog.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"workers": -1}, "must not be negative"),
        ({"workers": 0, "engine": Engine.RAY}, "how many workers"),
    ],
)
def test_settings_that_cannot_work(
    config: CloudConfig, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        dataclasses.replace(config, **changes)  # type: ignore[arg-type]


async def test_models_with_names_of_their_own_are_computed_there(
    config: CloudConfig, tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    write_fill(root / "fill" / "1")
    request = pb.ModelInferRequest(model_name="fill")
    oip.add_input(request, "k", np.array([3], np.int64))
    config = dataclasses.replace(
        config, bundles=root / "none", model_repository=root, workers=1, metrics=None
    )
    async with run_cloud(config) as cloud:
        response = await cloud.stub.ModelInfer(request, timeout=60)
    assert oip.output_array(response, "ones").tolist() == [1.0] * 3

import asyncio
import dataclasses
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hybridge.cloud.config import CloudConfig
from hybridge.shared.errors import ConfigError
from hybridge.shared.security import Address

from .bundles import random_pixels
from .conftest import Cloud, run_cloud
from .test_bad_input import gated, whole_stage
from .test_service import request_of

Samples = dict[str, float]
"""By name and labels, as the exposition format writes them."""


@pytest.fixture
def config(bundles: Path, config: CloudConfig) -> CloudConfig:
    return dataclasses.replace(config, metrics=Address("127.0.0.1", 0))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def text_of(cloud: Cloud, session: aiohttp.ClientSession, accept: str = "") -> str:
    url = f"http://{cloud.server.sites['metrics']}/metrics"
    async with session.get(url, headers={"Accept": accept}) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith(accept or "text/plain")
        return await response.text()


async def scrape(cloud: Cloud, session: aiohttp.ClientSession) -> Samples:
    return {
        f"{sample.name}{{{','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()))}}}": (
            sample.value
        )
        for family in text_string_to_metric_families(await text_of(cloud, session))
        for sample in family.samples
    }


async def test_requests_are_counted_and_timed(cloud: Cloud, session: aiohttp.ClientSession) -> None:
    before = await scrape(cloud, session)
    assert before["hybridge_inferences_total{model=tiny,version=1}"] == 0
    for _ in range(3):
        await cloud.stub.ModelInfer(request_of("pixels", random_pixels(0)))
    after = await scrape(cloud, session)
    assert after["hybridge_requests_total{code=OK,model=tiny,version=1}"] == 3
    assert after["hybridge_inferences_total{model=tiny,version=1}"] == 3
    assert after["hybridge_batch_items_count{model=tiny,version=1}"] == 3
    assert after["hybridge_batch_items_sum{model=tiny,version=1}"] == 3
    assert after["hybridge_requests_in_flight{}"] == 0
    assert after["process_resident_memory_bytes{}"] > 1e6
    prefix = "hybridge_request_duration_seconds"
    sums = {
        step: after[f"{prefix}_sum{{model=tiny,step={step},version=1}}"]
        for step in ("queue", "decode", "compute", "total")
    }
    assert 0 < sums["compute"] < sums["total"]
    assert sums["queue"] + sums["decode"] + sums["compute"] <= sums["total"]
    for step in sums:
        assert after[f"{prefix}_count{{model=tiny,step={step},version=1}}"] == 3
        assert after[f"{prefix}_bucket{{le=+Inf,model=tiny,step={step},version=1}}"] == 3


async def test_refusals_and_misses(cloud: Cloud, session: aiohttp.ClientSession) -> None:
    pixels = random_pixels(0)
    with pytest.raises(grpc.aio.AioRpcError):
        await cloud.stub.ModelInfer(request_of("pixels", pixels, latency_budget_ms=1e-3))
    with pytest.raises(grpc.aio.AioRpcError):
        await cloud.stub.ModelInfer(request_of("pixels", pixels[1:]))
    async with gated(whole_stage(cloud)):
        with pytest.raises(grpc.aio.AioRpcError):
            await cloud.stub.ModelInfer(request_of("pixels", pixels, latency_budget_ms=50))
        with pytest.raises(grpc.aio.AioRpcError):
            await cloud.stub.ModelInfer(request_of("pixels", pixels), timeout=0.05)
        busy = await scrape(cloud, session)
        while busy["hybridge_deadline_misses_total{model=tiny,version=1}"] < 2:
            busy = await scrape(cloud, session)  # the server learns of a gRPC deadline by itself
        assert busy["hybridge_batches_running{}"] == 2
    assert busy["hybridge_refusals_total{model=tiny,reason=deadline,version=1}"] == 1
    assert busy["hybridge_refusals_total{model=tiny,reason=bad_request,version=1}"] == 1
    assert busy["hybridge_requests_total{code=INVALID_ARGUMENT,model=tiny,version=1}"] == 1


async def test_a_queue_is_seen(config: CloudConfig, session: aiohttp.ClientSession) -> None:
    single = dataclasses.replace(config, instances=1)
    async with run_cloud(single) as cloud, gated(whole_stage(cloud)) as gate:
        calls = [
            asyncio.ensure_future(cloud.stub.ModelInfer(request_of("pixels", random_pixels(seed))))
            for seed in range(4)
        ]
        seen = await scrape(cloud, session)
        while seen["hybridge_queue_length{model=tiny}"] < 3:
            seen = await scrape(cloud, session)
        assert seen["hybridge_requests_in_flight{}"] == 4
        gate.allowed.set()
        await asyncio.gather(*calls)


async def test_unknown_models_make_no_series(cloud: Cloud, session: aiohttp.ClientSession) -> None:
    before = await scrape(cloud, session)
    for at in range(20):
        request = request_of("pixels", random_pixels(0), model=f"guess {at}")
        with pytest.raises(grpc.aio.AioRpcError):
            await cloud.stub.ModelInfer(request)
    after = await scrape(cloud, session)
    assert "guess" not in "".join(after)
    assert set(after) - set(before) == {
        "hybridge_requests_total{code=NOT_FOUND,model=,version=}",
        "hybridge_refusals_total{model=,reason=not_served,version=}",
    }
    assert after["hybridge_requests_total{code=NOT_FOUND,model=,version=}"] == 20


async def test_scraping_under_load(cloud: Cloud, session: aiohttp.ClientSession) -> None:
    """Each scrape is of one instant, and counters never go back."""

    async def load() -> None:
        for seed in range(60):
            await cloud.stub.ModelInfer(request_of("pixels", random_pixels(seed)))

    loads = asyncio.gather(load(), load(), load())
    last = 0.0
    while not loads.done():
        seen = await scrape(cloud, session)
        ok = seen.get("hybridge_requests_total{code=OK,model=tiny,version=1}", 0.0)
        total = "hybridge_request_duration_seconds_count{model=tiny,step=total,version=1}"
        assert last <= ok == seen[total]
        last = ok
    await loads
    seen = await scrape(cloud, session)
    assert seen["hybridge_requests_total{code=OK,model=tiny,version=1}"] == 180


async def test_openmetrics_is_spoken_too(cloud: Cloud, session: aiohttp.ClientSession) -> None:
    text = await text_of(cloud, session, "application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
async def test_promtool_finds_nothing(cloud: Cloud, session: aiohttp.ClientSession) -> None:
    await cloud.stub.ModelInfer(request_of("pixels", random_pixels(0)))
    text = await text_of(cloud, session)
    check = await asyncio.to_thread(
        subprocess.run,
        ["promtool", "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


async def test_nothing_else_is_there(cloud: Cloud, session: aiohttp.ClientSession) -> None:
    async with session.get(f"http://{cloud.server.sites['metrics']}/v2") as response:
        assert response.status == 404


async def test_ports_are_checked(config: CloudConfig) -> None:
    async with run_cloud(config) as cloud:
        taken = dataclasses.replace(config, metrics=cloud.server.sites["metrics"])
        with pytest.raises(ConfigError, match="cannot listen"):
            async with run_cloud(taken):
                pass
    opened = dataclasses.replace(config, metrics=Address("0.0.0.0", 0))
    with pytest.raises(ConfigError, match="without TLS"):
        async with run_cloud(opened):
            pass

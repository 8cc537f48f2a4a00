"""How many may come over HTTP, and how much they may bring."""

import dataclasses

import aiohttp
import pytest

from hybridge.cloud.config import CloudConfig
from hybridge.shared.errors import ConfigError
from hybridge.shared.security import MAX_MESSAGE_BYTES

from .conftest import Cloud, run_cloud
from .test_doors import HERE, HTTP_DOORS, POST, address_of, check_all_serve, connected, read_all
from .test_metrics import scrape
from .test_rest import infer_json
from .test_room import room_in, until


@pytest.fixture
def config(config: CloudConfig) -> CloudConfig:
    return dataclasses.replace(config, http=HERE, sagemaker=HERE, metrics=HERE)


@pytest.mark.parametrize("door", HTTP_DOORS)
async def test_more_connections_than_allowed_are_told_so(config: CloudConfig, door: str) -> None:
    async with run_cloud(dataclasses.replace(config, http_connections=3)) as cloud:
        port = cloud.server._statistics.ports[door]
        async with connected(cloud, door), connected(cloud, door), connected(cloud, door):
            await until(cloud, lambda: port.connections() == 3)
            async with connected(cloud, door) as (reader, _):
                assert (await read_all(reader)).startswith(b"HTTP/1.1 503 ")
            assert port.refused == 1
        await until(cloud, lambda: port.connections() == 0)
        async with aiohttp.ClientSession() as session:
            await check_all_serve(cloud, session)
            figures = await scrape(cloud, session)
    assert figures[f"hybridge_http_connections_refused_total{{port={door}}}"] == 1
    assert figures["hybridge_http_connections{port=metrics}"] >= 1


async def test_who_leaves_before_any_request_is_not_remembered(config: CloudConfig) -> None:
    async with run_cloud(config) as cloud:
        sites = cloud.server._sites
        for door in HTTP_DOORS:
            async with connected(cloud, door):
                await until(cloud, lambda: sum(site._open() for site in sites) == 1)
                assert sum(len(site._silent) for site in sites) == 1
            await until(cloud, lambda: not any(site._open() for site in sites))
            assert not any(site._silent for site in sites)


async def test_a_body_there_is_no_room_for_is_refused_before_it_comes(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = room_in(cloud)
    with monkeypatch.context() as small:
        small.setattr(room, "limit_bytes", 4 * MAX_MESSAGE_BYTES - 1)
        for told in (f"Content-Length: {MAX_MESSAGE_BYTES}", "Transfer-Encoding: chunked"):
            async with connected(cloud, "http") as (reader, writer):
                writer.write(POST + f"{told}\r\n\r\n".encode())
                assert b" 503 " in await reader.readline()
    async with aiohttp.ClientSession() as session:
        figures = await scrape(cloud, session)
        assert figures["hybridge_refusals_total{model=,reason=memory,version=}"] == 2
        assert figures["hybridge_request_memory_limit_bytes{}"] == room.limit_bytes
        async with session.post(
            f"http://{address_of(cloud, 'http')}/v2/models/tiny/infer", json=infer_json()
        ) as response:
            assert response.status == 200
        await check_all_serve(cloud, session)
    await until(cloud, lambda: room.taken_bytes == 0)


def test_there_must_be_room_for_the_largest_message(config: CloudConfig) -> None:
    with pytest.raises(ConfigError, match="are too little for requests"):
        dataclasses.replace(config, request_memory_bytes=MAX_MESSAGE_BYTES)

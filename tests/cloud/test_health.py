import asyncio
import dataclasses

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health_pb2_grpc import HealthStub

from hybridge.cloud.config import CloudConfig
from hybridge.cloud.health import Health
from hybridge.protos.oip import SERVICE_NAME

from .conftest import Cloud, run_cloud

Status = pb.HealthCheckResponse


@pytest.mark.parametrize("service", ["", SERVICE_NAME, "hybridge.fleet.v1.Fleet"])
async def test_a_loaded_cloud_is_serving(cloud: Cloud, service: str) -> None:
    health = HealthStub(cloud.channel)
    answer = await health.Check(pb.HealthCheckRequest(service=service))
    assert answer.status == Status.SERVING


async def test_unknown_services(cloud: Cloud) -> None:
    health = HealthStub(cloud.channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(pb.HealthCheckRequest(service="other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watching = health.Watch(pb.HealthCheckRequest(service="other"))
    assert (await watching.read()).status == Status.SERVICE_UNKNOWN
    watching.cancel()


async def test_who_watches_hears_of_the_end_and_does_not_hold_it_up(config: CloudConfig) -> None:
    async with run_cloud(dataclasses.replace(config, grace_ms=3_600_000)) as cloud:
        watching = [HealthStub(cloud.channel).Watch(pb.HealthCheckRequest()) for _ in range(2)]
        for each in watching:
            assert (await each.read()).status == Status.SERVING
        await asyncio.wait_for(cloud.server.shutdown(), 60)
        for each in watching:
            assert (await each.read()).status == Status.NOT_SERVING
            assert await each.read() is grpc.aio.EOF


async def test_each_change_is_told_once_to_everybody() -> None:
    health = Health(["service"])
    streams = [health.Watch(pb.HealthCheckRequest(service="service"), None) for _ in range(2)]
    for serving in (False, True, False):
        health.set(serving)
        for stream in streams:
            expected = Status.SERVING if serving else Status.NOT_SERVING
            assert (await anext(stream)).status == expected
    await streams[0].aclose()  # one who leaves makes nobody deaf
    waiting = asyncio.ensure_future(anext(streams[1]))
    await asyncio.sleep(0)
    health.set(serving=True)
    assert (await asyncio.wait_for(waiting, 30)).status == Status.SERVING


async def test_who_is_told_of_the_beginning_while_it_ends_is_told_of_the_end_too() -> None:
    health = Health(["service"])
    health.set(serving=True)
    stream = health.Watch(pb.HealthCheckRequest(service="service"), None)
    assert (await anext(stream)).status == Status.SERVING
    health.close()  # the stream has not gone on since
    assert [each.status async for each in stream] == [Status.NOT_SERVING]

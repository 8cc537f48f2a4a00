import asyncio
import logging
from dataclasses import dataclass, field

import pytest

from hybridge.edge import uplink as uplink_module
from hybridge.edge.breaker import Breaker
from hybridge.edge.uplink import CloudTimes, Uplink
from hybridge.protos import fleet_pb2
from hybridge.shared.deadline import monotonic
from hybridge.shared.errors import ConfigError, RemoteTooLate, RemoteUnavailable
from hybridge.shared.manifest import Precision
from hybridge.shared.security import Address, Security

from ..bundles import Small
from .clouds import answer_of, fake_cloud
from .conftest import connected

inf = float("inf")


def state(queue_ms: float, **compute_p95_ms: float) -> fleet_pb2.ProbeResponse:
    tails = [
        fleet_pb2.TailState(contract=name, compute_p50_ms=ms / 2, compute_p95_ms=ms)
        for name, ms in compute_p95_ms.items()
    ]
    return fleet_pb2.ProbeResponse(queue_forecast_ms=queue_ms, tails=tails)


def test_what_the_cloud_says_of_itself() -> None:
    times = CloudTimes()
    assert times.forecast_ms("a") == inf
    times.learn(state(5.0, a=10.0, b=30.0))
    assert times.forecast_ms("a") == 15.0
    assert times.forecast_ms("never measured") == 35.0  # as the slowest known
    times.learn(state(0.0, c=1.0))
    assert times.forecast_ms("a") == 1.0
    times.learn(state(0.0))
    assert times.forecast_ms("c") == inf


def test_the_cloud_says_what_it_computes_in() -> None:
    times = CloudTimes()
    assert times.precision("a") is Precision.FLOAT32
    said = {"a": "int8", "b": "", "c": "of a later version"}
    tails = [fleet_pb2.TailState(contract=name, precision=text) for name, text in said.items()]
    times.learn(fleet_pb2.ProbeResponse(tails=tails))
    assert times.precision("a") is Precision.INT8
    assert times.precision("still being loaded") is Precision.INT8
    times.learn(fleet_pb2.ProbeResponse(tails=tails[1:]))
    assert times.precision("a") is Precision.FLOAT32


async def test_an_exchange_teaches_without_the_clouds_own_share(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        cloud.answer = answer_of(0, 0, 0, 0, 1, queue_ms=1000.0, compute_ms=500.0, forecast_ms=70.0)
        cloud.allowed.set()
        seen: list[tuple[int, float]] = []
        observe = uplink.link.observe

        def record(size_bytes: int, ms: float, *, now_s: float) -> None:
            seen.append((size_bytes, ms))
            observe(size_bytes, ms, now_s=now_s)

        monkeypatch.setattr(uplink.link, "observe", record)
        answer = await uplink.infer(b"frame", version="1", parameters={}, left_ms=20_000)
        assert (answer.queue_ms, answer.compute_ms, answer.network_ms) == (1000.0, 500.0, 0.0)
        assert [ms for size_bytes, ms in seen if 100 < size_bytes < 1000] == [0.0]
        assert uplink.cloud.queue_ms == 70.0


async def test_an_exchange_in_vain_teaches_too(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        known = uplink.link.forecast_ms(500, now_s=monotonic())
        for _ in range(2):
            with pytest.raises(RemoteTooLate):
                await uplink.infer(b"frame", version="1", parameters={}, left_ms=100)
        assert uplink.link.forecast_ms(500, now_s=monotonic()) > max(known, 100)
        assert uplink.breaker.closed  # late is not gone


@dataclass(slots=True)
class Told(Breaker):
    """A breaker that tells when it closes."""

    closes: asyncio.Event = field(default_factory=asyncio.Event)

    def succeed(self) -> None:
        Breaker.succeed(self)
        self.closes.set()


async def test_the_uplinks_own_probes_find_a_cloud_that_comes_later(
    small: Small, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(uplink_module, "_PROBE_EVERY_S", 0.01)
    async with fake_cloud(small.bundle) as cloud:
        address = cloud.address
    async with connected(address, known=False) as uplink:
        uplink.breaker = told = Told(opened_at_s=0.0)
        with pytest.raises(RemoteUnavailable):
            await uplink.probe(0)
        assert not uplink.breaker.closed
        with caplog.at_level(logging.INFO):
            async with fake_cloud(small.bundle, address=address):
                await asyncio.wait_for(told.closes.wait(), 20)
                assert uplink.breaker.closed


async def test_a_cloud_in_the_open_needs_tls() -> None:
    uplink = Uplink(Address("192.0.2.7", 8500), security=Security(), model="small", clock=monotonic)
    with pytest.raises(ConfigError, match="without TLS"):
        await uplink.startup()

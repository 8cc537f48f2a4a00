"""The way to the cloud: what exchanges teach, and how it is found again."""

import asyncio
import logging
import random
import threading
from dataclasses import dataclass, field

import pytest

from hybridge.edge import uplink as uplink_module
from hybridge.edge.breaker import Breaker
from hybridge.edge.cloud_messages import CloudAnswer
from hybridge.edge.connection import Connection, GrpcConnection
from hybridge.edge.uplink import Uplink
from hybridge.protos import fleet_pb2
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared.deadline import monotonic
from hybridge.shared.errors import (
    ConfigError,
    RemoteError,
    RemoteRefused,
    RemoteTooLate,
    RemoteUnavailable,
)
from hybridge.shared.security import Address, Security

from ..bundles import NAME, Small
from .clouds import Wire, answer_of, fake_cloud
from .conftest import connected
from .scripted import SOON_S, Scene, Scripted, free


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """New connections are tried soon, and without end."""
    monkeypatch.setattr(uplink_module, "_RECONNECT_S", (0.005, 0.02))
    monkeypatch.setattr(uplink_module, "_TICK_S", 0.01)
    monkeypatch.setattr(uplink_module, "_STALLED_MS", 5.0)


async def infer(uplink: Uplink, *, left_ms: float = 20_000) -> CloudAnswer:
    return await uplink.infer(b"frame", model=NAME, version="1", parameters={}, left_ms=left_ms)


# What exchanges teach.


async def test_an_exchange_teaches_without_the_clouds_own_share() -> None:
    class Slow(Scripted):
        async def infer(
            self, request: pb.ModelInferRequest, *, timeout_s: float
        ) -> pb.ModelInferResponse:
            scene.clock.now_s += 1.55
            return answer_of(1, queue_ms=1000.0, compute_ms=500.0, forecast_ms=70.0)

    scene = Scene(Slow())
    for _ in range(20):
        answer = await scene.exchange()
    assert (answer.queue_ms, answer.compute_ms) == (1000.0, 500.0)
    assert answer.network_ms == pytest.approx(50.0)
    now_s = scene.clock.now_s
    assert scene.uplink.link.transfer(now_s=now_s).rtt_ms == pytest.approx(50.0, rel=0.1)
    forecast = scene.uplink.cloud.forecast("c", now_s=now_s)
    assert forecast.mean_ms == pytest.approx(500.0 + 70.0)
    assert scene.uplink.breaker.closed
    assert scene.uplink.ledger.spent_bytes(now_s=now_s) == 20 * (len(b"frame") + 400)


async def test_what_ran_out_of_time_is_still_under_way_until_something_later_is_answered() -> None:
    scene = Scene(free())
    await scene.uplink.probe(0)
    link = scene.uplink.link
    scene.opened[0].fault = RemoteTooLate("no answer in time")
    answering = asyncio.ensure_future(scene.exchange(left_ms=100.0))
    scene.opened[0].may_infer.clear()
    await scene.opened[0].asked.wait()
    await asyncio.sleep(0)
    scene.clock.now_s += 10.0
    scene.opened[0].may_infer.set()
    with pytest.raises(RemoteTooLate):
        await answering
    assert scene.uplink.breaker.closed  # late is not gone
    assert link.unproven == 1
    assert link.stall_ms(now_s=scene.clock.now_s) > 1_000
    scene.opened[0].fault = None
    await scene.uplink.probe(0)
    assert link.unproven == 0
    assert link.stall_ms(now_s=scene.clock.now_s) == 0.0


@pytest.mark.parametrize("fault", [RemoteRefused("no"), RemoteTooLate("cannot be met")])
async def test_a_refusal_at_once_is_an_answer(fault: RemoteError) -> None:
    scene = Scene(free())
    await scene.uplink.probe(0)
    scene.opened[0].fault = fault
    with pytest.raises(type(fault)):
        await scene.exchange()
    assert scene.uplink.link.unproven == 0
    assert scene.uplink.breaker.closed


async def test_what_ran_out_of_time_is_probed_after(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud, connected(cloud.address) as uplink:
        while not cloud.probed.empty():
            cloud.probed.get_nowait()
        with pytest.raises(RemoteTooLate):
            await infer(uplink, left_ms=100)
        await asyncio.wait_for(cloud.probed.get(), SOON_S)
        assert uplink.breaker.closed


async def test_a_broken_connection_opens_the_breaker_at_once() -> None:
    scene = Scene(free())
    await scene.uplink.probe(0)
    assert scene.uplink.breaker.closed
    scene.opened[0].fault = RemoteUnavailable("connection reset")
    with pytest.raises(RemoteUnavailable):
        await scene.exchange()
    assert not scene.uplink.breaker.closed
    assert scene.uplink.breaker.reason.endswith("connection reset")
    assert scene.uplink.link.unproven == 0
    waiting = asyncio.ensure_future(scene.uplink.reachable())
    scene.opened[0].fault = None
    await scene.uplink.probe(0)
    await waiting
    assert scene.uplink.breaker.closed


# Finding it again.


async def test_a_silent_connection_is_replaced_by_one_that_carries_a_probe(quick: None) -> None:
    old, new = free(), free()
    scene = Scene(old, new)
    await scene.uplink.probe(0)
    old.may_infer.clear()
    answering = asyncio.ensure_future(scene.exchange())
    await old.asked.wait()
    await asyncio.sleep(0)
    scene.clock.now_s += 10.0
    await scene.uplink._reconnect()
    await asyncio.wait_for(old.closed.wait(), SOON_S)
    assert scene.uplink._connection is new
    assert not new.closed.is_set()
    assert scene.uplink.link.unproven == 0
    old.fault = RemoteUnavailable("closed")  # what becomes of the old one is no news of the cloud
    old.may_infer.set()
    with pytest.raises(RemoteUnavailable):
        await answering
    assert scene.uplink.breaker.closed
    await scene.uplink.shutdown()
    assert new.closed.is_set()


async def test_a_new_connection_is_dropped_if_the_old_one_has_answered_meanwhile() -> None:
    old, new = free(), Scripted()
    scene = Scene(old, new)
    await scene.uplink.probe(0)
    old.may_infer.clear()
    old.asked.clear()
    answering = asyncio.ensure_future(scene.exchange())
    await old.asked.wait()
    scene.clock.now_s += 10.0
    trying = asyncio.ensure_future(scene.uplink._reconnect())
    await new.asked.wait()
    old.may_infer.set()
    assert (await answering).probabilities.tolist() == [0, 0, 0, 0, 1]
    new.may_probe.set()
    await trying
    assert scene.uplink._connection is old
    assert new.closed.is_set()
    assert not old.closed.is_set()


async def test_looking_for_why_a_cloud_is_not_understood_holds_up_no_attempt(
    quick: None,
) -> None:
    may_tell = threading.Event()

    def misfit() -> str:
        return "it speaks TLS" if may_tell.wait(SOON_S) else "never asked to tell"

    scene = Scene(free(), Scripted(), Scripted())
    uplink = scene.uplink
    uplink._find_misfit = misfit
    scene.clock.now_s += uplink_module._MISFIT_AFTER_S
    for attempt in (1, 2):
        assert await uplink._look_after() == 0.0
        await scene.opened[attempt].asked.wait()
    may_tell.set()
    async with asyncio.timeout(SOON_S):
        await uplink._woken.wait()
    assert uplink.breaker.reason == "it speaks TLS"
    low, high = uplink_module._MISFIT_S
    assert low <= await uplink._look_after() <= high
    assert len(scene.opened) == 1 + 2  # no more of them are tried meanwhile
    await scene.exchange()  # the old connection was understood after all
    uplink.breaker.fail("gone", now_s=scene.clock.now_s)
    scene._coming.append(Scripted())
    assert await uplink._look_after() == 0.0
    assert len(scene.opened) == 1 + 3
    await uplink.shutdown()


async def test_files_that_are_away_for_a_while_cost_no_attempt_for_good() -> None:
    files_there = False

    def connect() -> Connection:
        if not files_there:
            raise ConfigError("cannot read authority.pem: No such file or directory")
        return new

    new = free()
    scene = Scene(free())
    uplink = scene.uplink
    uplink._connect = connect
    for _ in range(2 * uplink_module._MOST_ATTEMPTS):
        await uplink._reconnect()
        assert not uplink.breaker.closed
    files_there = True
    assert await uplink._look_after() == 0.0
    async with asyncio.timeout(SOON_S):
        await uplink.reachable()
    assert uplink._connection is new
    await uplink.shutdown()


async def test_a_cloud_that_comes_back_and_cannot_be_understood_is_found_out() -> None:
    found = ["", "its certificate has expired"]
    scene = Scene(free())
    uplink = scene.uplink
    uplink._find_misfit = lambda: found.pop(0)
    uplink._look_for_misfit()  # nobody is there yet
    await asyncio.gather(*uplink._tasks)
    uplink._look_for_misfit()
    assert len(found) == 1
    scene.clock.now_s += uplink_module._MISFIT_S[0]
    uplink._look_for_misfit()
    async with asyncio.timeout(SOON_S):
        await uplink._woken.wait()
    assert uplink.breaker.reason == "its certificate has expired"
    await uplink.shutdown()


async def test_attempts_are_bounded_and_jittered(monkeypatch: pytest.MonkeyPatch) -> None:
    class Noted(random.Random):
        def uniform(self, a: float, b: float) -> float:
            drawn.append(super().uniform(a, b))
            return 0.0

    drawn: list[float] = []
    scene = Scene(free(), *(Scripted() for _ in range(4)))
    scene.uplink._random = Noted()
    assert not scene.uplink.breaker.closed
    for _ in range(20):
        assert await scene.uplink._look_after() == 0.0
    assert len(scene.opened) == 1 + 4
    assert [each.probes for each in scene.opened[1:]] == [1] * 4
    low, high = uplink_module._RECONNECT_S
    assert all(low <= pause_s <= high for pause_s in drawn)
    assert len(set(drawn)) == 20
    for each in scene.opened[1:]:
        each.fault = RemoteTooLate("silence")
        each.may_probe.set()
        await each.closed.wait()
    await scene.uplink.shutdown()


async def test_a_cloud_that_refuses_new_connections_while_the_old_one_stalls_is_gone() -> None:
    refused = [free(RemoteUnavailable("connection refused")) for _ in range(5)]
    old = free()
    scene = Scene(old, *refused)
    await scene.uplink.probe(0)
    old.may_infer.clear()
    old.asked.clear()
    answering = asyncio.ensure_future(scene.exchange())
    await old.asked.wait()
    scene.clock.now_s += 10.0
    for closed in (True, True, False, False):
        await scene.uplink._reconnect()
        assert scene.uplink.breaker.closed == closed
    assert scene.uplink.breaker.reason.endswith("connection refused")
    old.may_infer.set()  # it was only slow after all
    await answering
    assert scene.uplink.breaker.closed
    await scene.uplink._reconnect()
    assert scene.uplink.breaker.closed  # one is not three in a row
    await scene.uplink.shutdown()


@dataclass(slots=True)
class Told(Breaker):
    """A breaker that tells what becomes of it."""

    opens: asyncio.Event = field(default_factory=asyncio.Event)
    closes: asyncio.Event = field(default_factory=asyncio.Event)

    def fail(self, reason: str, *, now_s: float) -> None:
        Breaker.fail(self, reason, now_s=now_s)
        self.opens.set()

    def succeed(self) -> None:
        Breaker.succeed(self)
        self.closes.set()


async def test_a_cloud_killed_behind_a_link_that_stalls(small: Small, quick: None) -> None:
    async with (
        fake_cloud(small.bundle) as cloud,
        Wire(cloud.address) as wire,
        connected(wire.address) as uplink,
    ):
        uplink.breaker = told = Told()
        wire.silence()
        await cloud.server.stop(None)
        answering = asyncio.ensure_future(infer(uplink))
        await asyncio.wait_for(told.opens.wait(), SOON_S)
        assert not uplink.breaker.closed
        answering.cancel()


async def test_a_silent_connection_over_a_wire(small: Small, quick: None) -> None:
    async with fake_cloud(small.bundle) as cloud, Wire(cloud.address) as wire:
        cloud.allowed.set()
        async with connected(wire.address) as uplink:
            old = uplink._connection
            uplink.breaker = told = Told()
            wire.silence()
            lost = asyncio.ensure_future(infer(uplink))
            async with asyncio.timeout(SOON_S):
                while uplink._connection is old:  # until a new connection took over
                    await told.closes.wait()  # as does what the old one had still answered
                    told.closes.clear()
            assert (await infer(uplink)).probabilities.tolist() == [0, 0, 0, 0, 1]
            with pytest.raises(RemoteUnavailable, match="given up"):
                await lost
            assert uplink.breaker.closed


async def test_the_uplinks_own_attempts_find_a_cloud_that_comes_later(
    small: Small, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with fake_cloud(small.bundle) as cloud:
        address = cloud.address
    async with connected(address, known=False) as uplink:
        with pytest.raises(RemoteUnavailable):
            await uplink.probe(0)
        assert not uplink.breaker.closed
        with caplog.at_level(logging.INFO):
            async with fake_cloud(small.bundle, address=address):
                await asyncio.wait_for(uplink.reachable(), SOON_S)
                assert uplink.breaker.closed
        assert "is within reach" in caplog.text


async def test_a_cloud_that_has_loaded_nothing_yet_is_asked_again_soon(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uplink_module, "_LOADING_S", 0.01)
    monkeypatch.setattr(uplink_module, "_IDLE_S", 3_600.0)
    monkeypatch.setattr(uplink_module, "_TICK_S", 3_600.0)
    async with fake_cloud(small.bundle) as cloud:
        cloud.loaded = False
        async with connected(cloud.address, known=False) as uplink:
            for _ in range(2 + 5):  # the first two measure the link
                await asyncio.wait_for(cloud.probed.get(), SOON_S)
            assert uplink.breaker.closed
            assert not uplink.cloud.known
            learnt = asyncio.Event()
            learn = uplink.cloud.learn

            def note(state: fleet_pb2.ProbeResponse, *, now_s: float) -> None:
                learn(state, now_s=now_s)
                if state.tails:
                    learnt.set()

            monkeypatch.setattr(uplink.cloud, "learn", note)
            cloud.loaded = True
            await asyncio.wait_for(learnt.wait(), SOON_S)
            assert uplink.cloud.known
            assert await uplink._look_after() > 1_000  # and is then left alone


async def test_a_cloud_in_the_open_needs_tls() -> None:
    address = Address("192.0.2.7", 8500)
    uplink = Uplink(
        lambda: GrpcConnection(address, security=Security(), model=NAME), clock=monotonic, name=""
    )
    with pytest.raises(ConfigError, match="without TLS"):
        await uplink.startup()


async def test_an_outage_uses_up_no_allowance(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Connections that nobody takes carry nothing, however many are tried."""
    monkeypatch.setattr(uplink_module, "_RECONNECT_S", (0.0, 0.001))
    tried: asyncio.Queue[Scripted] = asyncio.Queue()

    def connect() -> Scripted:
        made = Scripted(RemoteUnavailable("refused"))
        made.may_probe.set()
        tried.put_nowait(made)
        return made

    uplink = Uplink(connect, clock=monotonic, name="nowhere")
    await uplink.startup()
    for _ in range(3):
        await asyncio.wait_for(tried.get(), SOON_S)
    spent_bytes = uplink.ledger.total_bytes
    for _ in range(10):
        await asyncio.wait_for(tried.get(), SOON_S)
    assert uplink.ledger.total_bytes == spent_bytes
    await uplink.shutdown()
    assert caplog.text.count("nowhere is not within reach yet: refused; does it run there") == 1

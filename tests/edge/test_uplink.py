"""The way to the cloud: what exchanges teach, and how it is found again."""

import asyncio
import itertools
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

SOON_S = 20.0
"""What is waited for has happened by then, however busy the machine is."""
TAILS = [fleet_pb2.TailState(contract="c", compute_p50_ms=1.0, compute_p95_ms=1.0)]


@dataclass
class Clock:
    """Moved by hand."""

    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(eq=False)
class Scripted:
    """A connection that does what it is told, once it may."""

    fault: RemoteError | None = None
    tails: list[fleet_pb2.TailState] = field(default_factory=lambda: TAILS)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    may_infer: asyncio.Event = field(default_factory=asyncio.Event)
    may_probe: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    probes: int = 0

    async def infer(
        self, request: pb.ModelInferRequest, *, timeout_s: float
    ) -> pb.ModelInferResponse:
        self.asked.set()
        await self.may_infer.wait()
        if self.fault is not None:
            raise self.fault
        return answer_of(0, 0, 0, 0, 1)

    async def probe(self, payload_bytes: int, *, timeout_s: float) -> fleet_pb2.ProbeResponse:
        self.probes += 1
        self.asked.set()
        await self.may_probe.wait()
        if self.fault is not None:
            raise self.fault
        return fleet_pb2.ProbeResponse(tails=self.tails)

    async def close(self, *, grace_s: float | None = None) -> None:
        self.closed.set()


def free(fault: RemoteError | None = None) -> Scripted:
    """One that answers at once."""
    connection = Scripted(fault)
    connection.may_infer.set()
    connection.may_probe.set()
    return connection


class Scene:
    """An uplink over scripted connections, in the order they are opened; nothing watches it."""

    def __init__(self, *connections: Scripted) -> None:
        self.clock = Clock()
        self._coming = list(connections)
        self.opened: list[Scripted] = []
        self.uplink = Uplink(self._open, clock=self.clock, name="scripted")
        self.uplink._connection = self._open()

    def _open(self) -> Connection:
        self.opened.append(self._coming.pop(0))
        return self.opened[-1]

    async def exchange(self, left_ms: float = 1_000.0) -> CloudAnswer:
        return await self.uplink.infer(
            b"frame", model=NAME, version="1", parameters={"contract": "c"}, left_ms=left_ms
        )


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


class Timed(Scripted):
    """Every exchange takes as long as it is told."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.may_probe.set()
        self.takes_s = 0.05
        self._clock = clock

    async def probe(self, payload_bytes: int, *, timeout_s: float) -> fleet_pb2.ProbeResponse:
        self._clock.now_s += self.takes_s
        return await super().probe(payload_bytes, timeout_s=timeout_s)

    async def infer(
        self, request: pb.ModelInferRequest, *, timeout_s: float
    ) -> pb.ModelInferResponse:
        self._clock.now_s += self.takes_s
        return await super().infer(request, timeout_s=timeout_s)


async def settled() -> tuple[Scene, Timed, Timed]:
    """An uplink that knows its link, and the connection that would come next."""
    scene = Scene(free())
    old, new = Timed(scene.clock), Timed(scene.clock)
    scene._coming += [old, new]
    scene.uplink._connection = scene._open()
    for _ in range(10):
        await scene.uplink.probe(0)
        scene.clock.now_s += 1.0
    return scene, old, new


async def test_a_surprise_gets_a_second_opinion_soon() -> None:
    """Else requests of a little budget would stay here until the next probe of an idle link."""
    scene, old, _ = await settled()
    uplink, clock = scene.uplink, scene.clock
    await uplink.probe(0)
    clock.now_s += 0.3
    before = old.probes
    assert await uplink._look_after() > 1.0
    assert old.probes == before
    old.takes_s = 1.0
    await uplink.probe(0)
    assert uplink.link.unsure
    old.takes_s, before = 0.05, old.probes
    assert await uplink._look_after() > 1.0  # asked at once, and sure again
    assert old.probes == before + 1


async def test_a_surprising_answer_wakes_who_asks_for_a_second_opinion() -> None:
    scene, old, _ = await settled()
    old.may_infer.set()
    await scene.exchange()
    assert not scene.uplink._woken.is_set()
    old.takes_s = 1.0
    await scene.exchange()
    assert scene.uplink._woken.is_set()


async def test_the_first_connection_is_measured_when_it_is_there() -> None:
    class Connecting(Timed):
        async def probe(self, payload_bytes: int, *, timeout_s: float) -> fleet_pb2.ProbeResponse:
            self.takes_s = 0.1 if self.probes else 0.4
            state = await super().probe(payload_bytes, timeout_s=timeout_s)
            if self.probes == 2:
                measured.set()
            return state

    clock, measured = Clock(), asyncio.Event()
    uplink = Uplink(lambda: Connecting(clock), clock=clock, name="scripted")
    await uplink.startup()
    await asyncio.wait_for(measured.wait(), SOON_S)
    assert uplink.link.transfer(now_s=clock.now_s).rtt_ms < 150.0
    assert uplink._patience_s() == 0.25
    await uplink.shutdown()


async def test_a_new_connection_is_probed_soon_and_less_and_less() -> None:
    scene, _, new = await settled()
    uplink, clock = scene.uplink, scene.clock
    uplink._lose(RemoteUnavailable("reset"))
    await uplink._reconnect()
    assert uplink._connection is new
    at_s = []
    while len(at_s) < 4:
        pause_s = await uplink._look_after()
        if new.probes > 1 + len(at_s):
            at_s.append(clock.now_s)
        clock.now_s += pause_s
    pauses_s = [after - before for before, after in itertools.pairwise(at_s)]
    assert pauses_s == pytest.approx([0.5, 1.0, 2.0], abs=0.2)


async def test_what_connecting_takes_is_no_round_trip() -> None:
    scene, _, new = await settled()
    uplink = scene.uplink
    new.takes_s = 0.2
    uplink._lose(RemoteUnavailable("reset"))
    await uplink._reconnect()
    rtt_ms = uplink.link.transfer(now_s=scene.clock.now_s).rtt_ms
    assert rtt_ms == pytest.approx(50.0, rel=0.1)


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

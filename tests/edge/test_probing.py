"""When the uplink probes its link, and what a new connection teaches."""

import asyncio
import itertools

import pytest

from hybridge.edge.uplink import Uplink
from hybridge.protos import fleet_pb2
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared.errors import RemoteUnavailable

from .scripted import SOON_S, Clock, Scene, Scripted, free


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
    assert await uplink._look_after() == 2.0  # asked at once, and sure again
    assert old.probes == before + 1
    assert uplink._patience_s() == 2.0  # that was no idle link, whose pauses double


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

"""`hybridge watch` against a real edge: once, as a stream, and while the edge is away."""

import itertools
import json
import time
from collections.abc import Iterator

import pytest

from hybridge.cli import watch as watch_module
from hybridge.cli.main import main
from hybridge.cli.watch import states
from hybridge.client import Client
from hybridge.edge.config import EdgeConfig
from hybridge.edge.daemon import EdgeDaemon
from hybridge.protos import fleet_pb2
from hybridge.shared.bundle import Bundle
from hybridge.shared.errors import RemoteRefused
from hybridge.shared.security import Address

from ..bundles import NAME, Small, picture
from ..edge.clouds import FakeCloud
from ..threads import serving

Capture = pytest.CaptureFixture[str]


def watch(edge: Address, *arguments: str) -> int:
    return main(["watch", "--edge", str(edge), *arguments])


def test_once_as_json(edge: Address, capsys: Capture) -> None:
    with Client(str(edge)) as client:
        client.infer(picture(0), budget_ms=20_000)
    assert watch(edge, "--once", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    said = json.loads(line)
    assert set(said) == {field.name for field in fleet_pb2.AgentState.DESCRIPTOR.fields}
    assert (said["model"], said["cloud"]) == (NAME, None)
    assert said["total"] == said["recent"]
    assert (said["total"]["answers"], said["total"]["within_budget"]) == (1, 1)
    assert said["plans"] == [{"name": "local", "answers": 1}]
    assert said["budget_tenths"][0] == 1
    assert {step["name"] for step in said["steps"]} == {"resize_light", "light"}


def test_what_is_not_known_is_null() -> None:
    said = watch_module.as_json(fleet_pb2.LinkState(exchanges=1, rtt_ms=0.0))
    assert (said["exchanges"], said["rtt_ms"], said["up_bps"]) == (1, 0.0, None)


def test_once_for_people(edge: Address, capsys: Capture) -> None:
    assert watch(edge, "--once") == 0
    said = capsys.readouterr().out
    assert f"{edge}, {NAME} 1, up " in said
    assert "none: the device answers alone" in said


def test_a_stream_of_states(
    edge: Address, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = watch_module.states

    def three(*arguments: object, **options: object) -> Iterator[fleet_pb2.AgentState]:
        return itertools.islice(endless(*arguments, **options), 3)  # type: ignore[arg-type]

    monkeypatch.setattr(watch_module, "states", three)
    assert watch(edge, "--json", "--every", "0.1") == 0
    uptimes = [json.loads(line)["uptime_s"] for line in capsys.readouterr().out.splitlines()]
    assert len(uptimes) == 3
    assert uptimes == sorted(set(uptimes))
    assert watch(edge, "--every", "0.1") == 0  # no terminal: one view after the other
    assert capsys.readouterr().out.count(", up ") == 3


def test_an_edge_that_goes_away_and_returns(
    small: Small, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "_AGAIN_S", 0.01)
    config = EdgeConfig(bundle=bundle.path, listen=Address("127.0.0.1", 0), trust=small.trust)
    told: list[str] = []
    with serving(EdgeDaemon(config)) as address:
        client = Client(str(address))
        watched = states(client, every_s=0.1, on_away=told.append)
        before = next(watched)
    again = EdgeConfig(bundle=bundle.path, listen=address, trust=small.trust)
    with serving(EdgeDaemon(again)):
        after = next(watched)
        while after.epoch == before.epoch:
            after = next(watched)
        assert told[0].startswith(f"the edge at {address} is away: ")
        assert len(told) == 1
        client.close()
    watched.close()


def test_nobody_there(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = Address("127.0.0.1", 1)
    said: list[float] = []

    def leave(pause_s: float) -> None:
        said.append(pause_s)
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", leave)
    assert watch(nobody, "--json") == 130
    error = capsys.readouterr().err
    assert error.startswith("hybridge: the edge at 127.0.0.1:1 is away: ")
    assert said == [1.0]


def test_once_and_nobody_there(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Client.agent_state
    monkeypatch.setattr(Client, "agent_state", lambda client: real(client, wait_ms=50.0))
    assert watch(Address("127.0.0.1", 1), "--once") == 69
    assert "nobody answers at 127.0.0.1:1 within 50 ms" in capsys.readouterr().err


class Cloud(FakeCloud):
    async def startup(self, *, on_listening: object = None) -> None:
        await self.start(Address("127.0.0.1", 0))
        assert callable(on_listening)
        on_listening(self.address)

    async def shutdown(self) -> None:
        await self.server.stop(None)


def test_what_is_no_edge(small: Small, capsys: Capture) -> None:
    with serving(Cloud(small.bundle)) as address:
        assert watch(address, "--once") == 69
        assert "UNIMPLEMENTED" in capsys.readouterr().err
        with Client(str(address)) as client, pytest.raises(RemoteRefused):
            next(states(client, every_s=1.0, on_away=pytest.fail))


@pytest.mark.parametrize("every", ["0", "-1", "nan", "4000"])
def test_intervals_that_are_none(edge: Address, capsys: Capture, every: str) -> None:
    assert watch(edge, "--every", every) == 78
    assert "use 0.1 to 3600 seconds" in capsys.readouterr().err

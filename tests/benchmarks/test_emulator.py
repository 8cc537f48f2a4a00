import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from wan.namespaces import CLOUD_HOST, Namespace, Namespaces, two_namespaces
from wan.workers import Worker

from hybridge.shared.errors import ConfigError, RemoteRefused

from .wan_sockets import connection, emulator, listener, needs_namespaces

pytestmark = needs_namespaces

PAYLOAD = os.urandom(300_000)


@pytest.fixture
def pair() -> Iterator[Namespaces]:
    with two_namespaces() as made:
        yield made


@pytest.fixture
def link(pair: Namespaces, tmp_path: Path) -> Iterator[Worker]:
    (tmp_path / "recorded.up").write_text("".join(f"{ms}\n" for ms in range(1, 400)))
    (tmp_path / "recorded.down").write_text("".join(f"{ms}\n" for ms in range(1, 400)))
    with emulator(pair, tmp_path) as worker:
        yield worker


def read_all(server: socket.socket) -> bytes:
    accepted, _ = server.accept()
    with accepted:
        accepted.settimeout(server.gettimeout())
        return b"".join(iter(lambda: accepted.recv(1 << 16), b""))


@pytest.mark.parametrize("name", ["lte", "trace:recorded"])
def test_bytes_cross_the_link_whole_and_are_counted(
    pair: Namespaces, link: Worker, name: str
) -> None:
    link.ask({"do": "link", "name": name, "seed": 1, "offset_s": 0.1})
    with listener(pair) as server:
        client = connection(pair, server)
        received: list[bytes] = []
        reading = threading.Thread(target=lambda: received.append(read_all(server)))
        reading.start()
        with client:
            client.sendall(PAYLOAD)
        reading.join()
    assert received == [PAYLOAD]
    statistics = link.ask({"do": "statistics"})
    assert statistics["link"] == name
    assert statistics["ways"]["up"]["delivered_bytes"] > len(PAYLOAD)
    assert statistics["ways"]["down"]["delivered"] > 0


def test_a_cut_link_loses_everything_until_it_is_restored(pair: Namespaces, link: Worker) -> None:
    with listener(pair) as server, connection(pair, server) as client:
        accepted, _ = server.accept()
        with accepted:
            link.ask({"do": "cut"})
            before = link.ask({"do": "statistics"})["ways"]["up"]["put"]
            client.sendall(b"lost at first")
            after = link.ask({"do": "statistics"})["ways"]["up"]["put"]
            assert after == before
            link.ask({"do": "restore"})
            accepted.settimeout(20)
            assert accepted.recv(100) == b"lost at first"  # TCP sends it again


def test_a_link_that_is_not_there_changes_nothing(link: Worker) -> None:
    with pytest.raises(RemoteRefused, match="no link '5g'"):
        link.ask({"do": "link", "name": "5g"})
    assert link.ask({"do": "statistics"})["link"] == "ethernet"


def test_nothing_but_the_emulator_joins_the_namespaces(pair: Namespaces) -> None:
    with pair.edge.entered(), socket.socket() as client, pytest.raises(OSError, match="unreach"):
        client.connect((CLOUD_HOST, 1))


def test_congestion_control_is_what_was_asked_for() -> None:
    with two_namespaces(congestion_control="reno") as pair:
        assert pair.congestion_control() == "reno"


def test_namespaces_go_with_their_block_whatever_happened() -> None:
    def interrupted() -> None:
        with two_namespaces() as pair:
            made.extend(Path("/var/run/netns", side.name) for side in (pair.edge, pair.cloud))
            assert all(path.exists() for path in made)
            raise KeyboardInterrupt

    made: list[Path] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert made
    assert not any(path.exists() for path in made)


def test_what_a_killed_laboratory_left_is_removed() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    orphan = Namespace(f"hybridge-edge-{ended.pid}")
    subprocess.run(["ip", "netns", "add", orphan.name], check=True)
    with two_namespaces():
        assert not Path("/var/run/netns", orphan.name).exists()


def test_without_root_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match="need root"), two_namespaces():
        pass

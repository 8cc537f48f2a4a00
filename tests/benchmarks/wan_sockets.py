"""What the tests of the laboratory's I/O share: whether it may run here, and TCP through it."""

import socket
from pathlib import Path

import pytest
from wan import namespaces
from wan.namespaces import CLOUD_HOST, Namespaces
from wan.workers import Worker, script

may_not = namespaces.why_not()
needs_namespaces = pytest.mark.skipif(bool(may_not), reason=may_not or "namespaces are permitted")
PATIENCE_S = 20.0


def emulator(pair: Namespaces, folder: Path) -> Worker:
    """An emulator between two namespaces."""
    command = [*script("emulator"), pair.edge.name, pair.cloud.name, "--traces", str(folder)]
    return Worker("emulator", command, log=folder / "emulator.log")


def listener(pair: Namespaces) -> socket.socket:
    """A TCP port in the cloud's namespace."""
    with pair.cloud.entered():
        server = socket.create_server((CLOUD_HOST, 0))
    server.settimeout(PATIENCE_S)
    return server


def connection(pair: Namespaces, server: socket.socket) -> socket.socket:
    """A connection to it from the edge's."""
    with pair.edge.entered():
        client = socket.socket()
    client.settimeout(PATIENCE_S)
    client.connect(server.getsockname())
    return client

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from hybridge.cloud.config import CloudConfig
from hybridge.cloud.executors import threads
from hybridge.cloud.server import CloudServer
from hybridge.protos.fleet_pb2_grpc import FleetStub
from hybridge.protos.oip import Stub
from hybridge.shared.security import Address, Security
from hybridge.shared.signing import SigningKey, TrustStore

from .bundles import TinyModel, write_bundle


@dataclass(frozen=True)
class Cloud:
    """A cloud in this process, and the ways to talk to it."""

    server: CloudServer
    channel: grpc.aio.Channel
    stub: Stub
    fleet: FleetStub

    @property
    def address(self) -> Address:
        return self.server.address


@pytest.fixture(autouse=True)
def nothing_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that hold runs up count who waits, which is not to depend on how long runs took."""
    monkeypatch.setattr(threads, "AHEAD_S", 0.0)


@pytest.fixture
def model() -> TinyModel:
    return TinyModel()


@pytest.fixture
def bundles(tmp_path: Path, key: SigningKey, model: TinyModel) -> Path:
    """A directory with the one bundle tiny/1."""
    root = tmp_path / "bundles"
    write_bundle(root, key=key, model=model)
    return root


@pytest.fixture
def config(bundles: Path, trust: TrustStore) -> CloudConfig:
    return CloudConfig(bundles=bundles, trust=trust, address=Address("127.0.0.1", 0), instances=2)


@asynccontextmanager
async def run_cloud(config: CloudConfig) -> AsyncIterator[Cloud]:
    server = CloudServer(config)
    try:
        await server.startup()
        async with Security().channel(server.address) as channel:
            yield Cloud(server, channel, Stub(channel), FleetStub(channel))
    finally:
        await server.shutdown()


@pytest.fixture
async def cloud(config: CloudConfig) -> AsyncIterator[Cloud]:
    async with run_cloud(config) as running:
        yield running

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hybridge.cloud.config import CloudConfig
from hybridge.cloud.server import CloudServer
from hybridge.devices.models import DeviceModels
from hybridge.devices.probe import probe
from hybridge.devices.profile import Profile, save_profile
from hybridge.edge import run as run_module
from hybridge.edge.agent import Agent
from hybridge.edge.assurance import Assurance
from hybridge.edge.auditor import Auditor
from hybridge.edge.bench import DeviceBench
from hybridge.edge.config import EdgeConfig
from hybridge.edge.connection import GrpcConnection
from hybridge.edge.daemon import EdgeDaemon
from hybridge.edge.demand import ANYTHING, Demand
from hybridge.edge.policy import Policy
from hybridge.edge.stage_times import StageTimes
from hybridge.edge.uplink import Uplink
from hybridge.shared.bundle import open_bundle
from hybridge.shared.deadline import Clock, monotonic
from hybridge.shared.privacy import Privacy
from hybridge.shared.security import MAX_MESSAGE_BYTES, Address, Security

from ..bundles import CLOUD, LOCAL, NAME, SPLIT, Small, stage_times

PLANS = (LOCAL, SPLIT, CLOUD)
ANY_PORT = Address("127.0.0.1", 0)


@pytest.fixture(autouse=True)
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that runs tests keeps nobody's 5 ms: what must be in time gets more to spare."""
    monkeypatch.setattr(run_module, "RESERVE_MS", 300.0)


@pytest.fixture
async def cloud(small: Small) -> AsyncIterator[Address]:
    """A real cloud with the small bundle, every tail loaded."""
    config = CloudConfig(
        bundles=small.root, trust=small.trust, address=ANY_PORT, instances=1, preload=True
    )
    server = CloudServer(config)
    try:
        await server.startup()
        yield server.address
    finally:
        await server.shutdown()


@asynccontextmanager
async def connected(
    address: Address, *, known: bool = True, most_answer_bytes: int = MAX_MESSAGE_BYTES
) -> AsyncIterator[Uplink]:
    """An uplink that has measured its cloud, where there is one to be measured."""
    uplink = Uplink(
        lambda: GrpcConnection(
            address, security=Security(), model=NAME, most_answer_bytes=most_answer_bytes
        ),
        clock=monotonic,
        name=str(address),
    )
    await uplink.startup()
    try:
        if known:
            await uplink.probe(0)
            await uplink.probe(12_000)
        yield uplink
    finally:
        await uplink.shutdown()


def make_agent(
    small: Small,
    uplink: Uplink | None,
    *,
    slow: str = "",
    light_p999_ms: float = 100.0,
    max_requests: int = 8,
    models: DeviceModels | None = None,
    policy: Policy | None = None,
    assurance: Assurance | None = None,
    auditor: Auditor | None = None,
    demand: Demand = ANYTHING,
    privacy: Privacy | None = None,
    clock: Clock = monotonic,
) -> Agent:
    """An agent that believes every stage to be quick, but for one."""
    times = stage_times(PLANS, slow=slow, light_p999_ms=light_p999_ms)
    return Agent(
        small.bundle,
        bench=DeviceBench(models or small.models, clock=clock, workers=2),
        times=StageTimes(times),
        uplink=uplink,
        clock=clock,
        policy=policy,
        assurance=assurance,
        auditor=auditor,
        demand=demand,
        privacy=privacy,
        max_requests=max_requests,
    )


def measured_copy(small: Small, root: Path) -> Path:
    """The bundle again, with a profile of this machine beside it."""
    path = small.rewrite(root, lambda manifest: manifest)
    bundle = open_bundle(path, trust=small.trust)
    save_profile(
        Profile(device=probe(), bundle_sha256=bundle.sha256, stages=stage_times(PLANS)),
        bundle.profiles,
    )
    return path


@asynccontextmanager
async def run_edge(config: EdgeConfig) -> AsyncIterator[EdgeDaemon]:
    daemon = EdgeDaemon(config)
    try:
        await daemon.startup()
        yield daemon
    finally:
        await daemon.shutdown()


@asynccontextmanager
async def run_knowing(config: EdgeConfig) -> AsyncIterator[EdgeDaemon]:
    """An edge that knows its link, and would rather ask its cloud."""
    async with run_edge(config) as daemon:
        uplink = daemon.agent.uplink
        assert uplink is not None
        await uplink.probe(0)
        await uplink.probe(24_000)
        yield daemon

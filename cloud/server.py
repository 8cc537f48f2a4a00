"""The cloud as a daemon. After a first SIGINT or SIGTERM accepted requests are finished."""

import asyncio
import logging
import platform

import grpc
from aiohttp import web
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from ..protos.fleet_pb2_grpc import add_FleetServicer_to_server
from ..protos.oip import SERVICE_NAME, add_servicer
from ..shared import daemon
from ..shared.daemon import OnListening
from ..shared.deadline import monotonic
from ..shared.discovery import Advertisement
from ..shared.errors import ConfigError
from ..shared.oip_wire import parse_infer
from ..shared.rpc import guarded
from ..shared.security import SERVER_OPTIONS, Address
from .config import CloudConfig
from .control import ModelControl
from .executors.opening import executor_of, join
from .fleet import FleetService
from .front import Front, Served
from .growth import keep_looking
from .health import Health
from .inference import Inference
from .limits import limits_of
from .loader import Loader
from .memory import keep_what_is_freed
from .metrics import metrics_app
from .opening import open_shelf
from .reflection import FLEET, add_reflection
from .repository import Repository
from .rest import rest_app
from .room import Room, doors_of
from .sagemaker import sagemaker_app
from .service import InferenceService
from .shared_memory import SharedMemory
from .shares import Shares
from .stage import Stage
from .statistics import Statistics
from .web import Site
from .worker import Worker

log = logging.getLogger(__name__)


class CloudServer:
    """One cloud, between `startup` and `shutdown`."""

    def __init__(self, config: CloudConfig) -> None:
        self.config = config
        self.address = config.address
        self.sites: dict[str, Address] = {}
        """The HTTP ports that are open, by what they are for."""
        self._server: grpc.aio.Server | None = None
        self._front: Front | None = None
        self._health = Health((SERVICE_NAME, FLEET))
        self._worker: Worker | None = None
        self._loader: Loader | None = None
        self._control: ModelControl | None = None
        self._following: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._advertisement: Advertisement | None = None
        self._statistics = Statistics()
        self._shared_memory = SharedMemory(allowed=config.shared_memory)
        self._sites: list[Site] = []

    async def startup(self, *, on_listening: OnListening | None = None) -> None:
        """Listens, then loads all whole models; ConfigError if either cannot be."""
        config = self.config
        shelf = config.shelf()
        if not shelf.found():
            where = " or ".join(map(str, filter(None, (config.bundles, config.model_repository))))
            raise ConfigError(f"no bundle under {where}; build one first")
        executor = await executor_of(config)
        room = Room(config.request_memory_bytes, refused=self._statistics.unknown)
        self._front = front = Front(room)
        await self._listen(front)
        await self._open_sites(front)
        log.info("listening on %s", self.address)
        if on_listening is not None:
            on_listening(self.address)
        limits = await asyncio.to_thread(limits_of, config)
        shelf = config.shelf(budget_bytes=limits.budget_bytes)
        opened = await asyncio.to_thread(open_shelf, shelf, load=not limits.any)
        self._worker = Worker(
            executor=executor,
            queue_limit=config.queue_limit,
            shares=Shares(config.shares),
            on_execution=self._statistics.executed,
        )
        await self._worker.start()
        self._loader = Loader(self._worker, limits=limits, statistics=self._statistics)
        inference = Inference(
            opened.repository,
            worker=self._worker,
            loader=self._loader,
            statistics=self._statistics,
            shared_memory=self._shared_memory,
        )
        await inference.start()
        if limits.any:
            self._loader.start(_at_start(opened.repository, preload=config.preload))
        if config.preload or limits.any:
            await self._loader.finished()
        self._control = control = ModelControl(
            inference, shelf, allowed=config.model_control, opened=opened
        )
        if config.poll_s is not None:
            self._following = asyncio.create_task(control.follow(every_s=config.poll_s))
        self._looking = asyncio.create_task(
            keep_looking(self._statistics.growth, inference.sight, clock=monotonic)
        )
        front.open(Served(inference=inference, control=control, since_s=monotonic()))
        self._health.set(serving=True)
        for name in self.config.shares.keys() - {model.name for model in opened.repository}:
            log.warning("a share is kept for %s, which is not served", name)
        for name in self.config.remotes.keys() - {model.name for model in opened.repository}:
            log.warning("a remote is given for %s, which is not served", name)
        log.info("ready: %s", ", ".join(str(model.whole.key) for model in opened.repository))
        await self._advertise()

    async def shutdown(self) -> None:
        """Takes no new requests, finishes the accepted ones within the grace, then ends."""
        if self._advertisement is not None:
            await self._advertisement.close()
        self._health.close()
        if self._front is not None:
            self._front.close()
        stopping = [site.stop() for site in self._sites]
        if self._server is not None:
            log.info("draining for at most %.1f s", self.config.grace_ms / 1e3)
            stopping.append(self._server.stop(self.config.grace_ms / 1e3))
        await asyncio.gather(*stopping)
        for task in (self._following, self._looking):
            if task is not None:
                task.cancel()
        if self._control is not None:
            await self._control.close()
        if self._loader is not None:
            await self._loader.close()
        if self._worker is not None:
            await self._worker.close()
        self._shared_memory.unregister("")
        log.info("stopped")

    async def _listen(self, front: Front) -> None:
        self._server = grpc.aio.server(
            options=[
                *SERVER_OPTIONS,
                ("grpc.max_allowed_incoming_connections", self.config.grpc_connections),
            ],
            compression=grpc.Compression.NoCompression,
        )
        services = guarded(self._server, doors_of(front.room))
        inference = InferenceService(front)
        add_servicer(services, inference, infer=inference.infer, parse=parse_infer)
        add_FleetServicer_to_server(FleetService(front), services)
        add_HealthServicer_to_server(self._health, services)
        add_reflection(services)
        self.address = self.config.security.bind(self._server, self.config.address)
        await self._server.start()

    async def _open_sites(self, front: Front) -> None:
        config = self.config
        for name, address, app in (
            ("http", config.http, rest_app(front)),
            ("sagemaker", config.sagemaker, sagemaker_app(front)),
            ("metrics", config.metrics, metrics_app(self._statistics, front)),
        ):
            if address is not None:
                await self._open(name, address, app)

    async def _open(self, name: str, address: Address, app: web.Application) -> None:
        site = Site(app, grace_ms=self.config.grace_ms, connections=self.config.http_connections)
        self._statistics.ports[name] = site.figures
        self.sites[name] = await site.start(address, security=self.config.security)
        self._sites.append(site)
        log.info("%s on %s", name, self.sites[name])

    async def _advertise(self) -> None:
        if not self.config.advertise:
            return
        name = f"hybridge-{platform.node().partition('.')[0]}-{self.address.port}"
        advertisement = Advertisement(self.address, name)
        try:
            await advertisement.start()
        except OSError as error:  # without multicast the address still works
            log.warning("cannot announce this cloud on the network: %s", error)
        else:
            self._advertisement = advertisement


def _at_start(repository: Repository, *, preload: bool) -> list[Stage]:
    """What is loaded at the start although models are loaded when they are called.

    Everything once to be tried and measured, or at least what does not fit, whose price is told.
    """
    if preload:
        return [stage for model in repository for stage in model.stages]
    return [model.whole for model in repository if model.offloads]


async def serve(config: CloudConfig, *, on_listening: OnListening | None = None) -> None:
    """Runs a cloud until SIGINT or SIGTERM; ConfigError if it cannot start."""
    await join(config)
    if config.memory_limit_bytes is None:
        keep_what_is_freed()
    await daemon.serve(CloudServer(config), on_listening=on_listening)

"""The cloud as a daemon. After a first SIGINT or SIGTERM accepted requests are finished."""

import asyncio
import logging
import platform

import grpc

from ..protos.fleet_pb2_grpc import add_FleetServicer_to_server
from ..protos.oip import add_servicer
from ..shared import daemon
from ..shared.bundle import list_bundles
from ..shared.daemon import OnListening
from ..shared.discovery import Advertisement
from ..shared.errors import ConfigError
from ..shared.rpc import FaultInterceptor
from ..shared.security import SERVER_OPTIONS
from .config import CloudConfig
from .fleet import FleetService
from .inference import Inference
from .loader import Loader
from .repository import load_repository
from .service import InferenceService
from .worker import Worker

log = logging.getLogger(__name__)


class CloudServer:
    """One cloud, between `startup` and `shutdown`."""

    def __init__(self, config: CloudConfig) -> None:
        self.config = config
        self.address = config.address
        self._server: grpc.aio.Server | None = None
        self._inference: asyncio.Future[Inference] | None = None
        self._worker: Worker | None = None
        self._loader: Loader | None = None
        self._advertisement: Advertisement | None = None

    async def startup(self, *, on_listening: OnListening | None = None) -> None:
        """Listens, then loads all whole models; ConfigError if either cannot be."""
        config = self.config
        if not list_bundles(config.bundles):
            raise ConfigError(f"no bundle under {config.bundles}; build one first")
        self._inference = asyncio.get_running_loop().create_future()
        await self._listen(self._inference)
        log.info("listening on %s", self.address)
        if on_listening is not None:
            on_listening(self.address)
        repository = await asyncio.to_thread(
            load_repository,
            config.bundles,
            trust=config.trust,
            max_batch=config.max_batch,
            precision=config.precision,
            runtime=config.runtime,
        )
        self._worker = Worker(instances=config.instances, queue_limit=config.queue_limit)
        self._loader = Loader(self._worker)
        inference = Inference(repository, worker=self._worker, loader=self._loader)
        inference.start()
        if config.preload:
            await self._loader.finished()
        self._inference.set_result(inference)
        log.info("ready: %s", ", ".join(str(model.whole.key) for model in repository))
        await self._advertise()

    async def shutdown(self) -> None:
        """Takes no new requests, finishes the accepted ones within the grace, then ends."""
        if self._advertisement is not None:
            await self._advertisement.close()
        if self._inference is not None and not self._inference.done():
            self._inference.cancel()  # nobody need wait for models that do not come
        if self._server is not None:
            log.info("draining for at most %.1f s", self.config.grace_ms / 1e3)
            await self._server.stop(self.config.grace_ms / 1e3)
        if self._loader is not None:
            await self._loader.close()
        if self._worker is not None:
            self._worker.close()
        log.info("stopped")

    async def _listen(self, inference: asyncio.Future[Inference]) -> None:
        self._server = grpc.aio.server(
            interceptors=[FaultInterceptor()],
            options=SERVER_OPTIONS,
            compression=grpc.Compression.NoCompression,
        )
        add_servicer(self._server, InferenceService(inference))
        add_FleetServicer_to_server(FleetService(inference), self._server)
        self.address = self.config.security.bind(self._server, self.config.address)
        await self._server.start()

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


async def serve(config: CloudConfig, *, on_listening: OnListening | None = None) -> None:
    """Runs a cloud until SIGINT or SIGTERM; ConfigError if it cannot start."""
    await daemon.serve(CloudServer(config), on_listening=on_listening)

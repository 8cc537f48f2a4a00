"""The edge daemon: one event loop, one agent, one port."""

import asyncio
import logging
import math
import time
from statistics import median

import grpc
import numpy as np

from ..devices.conditions import Watch
from ..devices.models import DeviceModels, measure_stages, stage_names
from ..devices.probe import probe
from ..devices.profile import Profile, load_profile, save_profile, today
from ..devices.yardstick import measure_yardstick
from ..protos import fleet_pb2_grpc, oip
from ..shared import daemon
from ..shared.bundle import Bundle, open_bundle
from ..shared.codec import codec_by_name
from ..shared.cores import usable_cores
from ..shared.daemon import OnListening
from ..shared.deadline import Deadline, monotonic
from ..shared.discovery import find_cloud
from ..shared.errors import ConfigError, RemoteUnavailable
from ..shared.manifest import Manifest
from ..shared.oip_wire import parse_infer
from ..shared.plan import PlanKind
from ..shared.privacy import Privacy, read_privacy
from ..shared.rpc import guarded
from ..shared.security import MAX_MESSAGE_BYTES, SERVER_OPTIONS, Address
from .agent import Agent, assurance_of
from .assurance import Assurance
from .auditor import Auditor
from .bench import DeviceBench
from .config import EdgeConfig
from .connection import GrpcConnection
from .demand import Demand
from .monitor import Monitor
from .processor import ProcessorLoad
from .results import ResultLog
from .selftest import golden_picture, self_test
from .service import EdgeService
from .stage_times import StageTimes
from .uplink import Uplink
from .watching import EdgeWatching

log = logging.getLogger(__name__)

_DRAIN_S = 2.0
_REHEARSAL_MS = 10_000.0
_WORDS_BYTES = 1 << 20
"""For what an answer, or a probe's, says beside its tensors."""
_LONG_MS = 2.0
"""A shorter stage may slip through between two periods of a quota."""


class EdgeDaemon:
    """One agent on one port, between `startup` and `shutdown`."""

    def __init__(self, config: EdgeConfig) -> None:
        self._config = config
        self.address = config.listen
        self._search: asyncio.Task[None] | None = None
        self._server: grpc.aio.Server | None = None
        self._agent: Agent | None = None
        self._service: EdgeService | None = None
        self._watching: EdgeWatching | None = None

    async def startup(self, *, on_listening: OnListening | None = None) -> None:
        """Loads the bundle and opens the port; the cloud may come later."""
        config = self._config
        self._agent = agent = await asyncio.to_thread(self._load)
        bundle = agent.bundle
        await rehearse(agent, max_pixels=config.max_pixels)
        results, monitor = ResultLog(), Monitor(monotonic())
        self._service = EdgeService(
            agent, bundle, results=results, monitor=monitor, clock=monotonic
        )
        self._watching = EdgeWatching(agent, results, monitor, clock=monotonic)
        self._server = grpc.aio.server(
            options=SERVER_OPTIONS,
            compression=grpc.Compression.NoCompression,
        )
        services = guarded(self._server)
        oip.add_servicer(services, self._service, parse=parse_infer)
        fleet_pb2_grpc.add_EdgeServicer_to_server(self._watching, services)
        self.address = config.security.bind(self._server, config.listen)
        await self._server.start()
        await self.connect()
        if config.cloud is None and config.discover:
            self._search = asyncio.create_task(self._find_cloud(agent), name="find-cloud")
        self._service.ready = True
        manifest = bundle.manifest
        log.info(
            "%s version %s on %s, %s",
            manifest.name,
            manifest.version,
            self.address,
            probe().runtime,
        )
        if on_listening is not None:
            on_listening(self.address)

    async def shutdown(self) -> None:
        """Takes nothing new, lets what is under way end, closes everything."""
        if self._service is not None:
            self._service.ready = False
        if self._watching is not None:
            self._watching.close()
        if self._search is not None:
            self._search.cancel()
        if self._server is not None:
            await self._server.stop(_DRAIN_S)
        if self._agent is not None:
            await self.disconnect()
            self._agent.close()

    @property
    def agent(self) -> Agent:
        """The agent, between `startup` and `shutdown`."""
        assert self._agent is not None, "not started"
        return self._agent

    async def connect(self) -> None:
        """Turns to the cloud that was given, if one was, knowing nothing of it yet."""
        if self._config.cloud is not None:
            await self._connect(self.agent, self._config.cloud)

    async def disconnect(self) -> None:
        """Leaves the cloud there is, if any: the agent answers alone."""
        uplink, self.agent.uplink = self.agent.uplink, None
        if uplink is not None:
            await uplink.shutdown()

    def _load(self) -> Agent:
        config = self._config
        bundle = open_bundle(config.bundle, trust=config.trust)
        if unpriced := config.prices.missing(config.demand_of(bundle.manifest).objective):
            raise ConfigError(unpriced)
        models = DeviceModels(bundle, threads=config.threads)
        profile = ready_profile(bundle, models)
        models.warm_up(golden_picture(bundle))
        bench = DeviceBench(
            models,
            clock=monotonic,
            workers=usable_cores(),
            max_pixels=config.max_pixels,
        )
        return Agent(
            bundle,
            bench=bench,
            times=StageTimes(profile.stages),
            uplink=None,
            clock=monotonic,
            assurance=(assurance := assurance_of(bundle, delta=config.delta)),
            auditor=self._auditor(assurance, config.demand_of(bundle.manifest)),
            demand=config.demand_of(bundle.manifest),
            prices=config.prices,
            privacy=self._privacy(bundle),
            processor=ProcessorLoad(wall_per_cpu=stretch(profile), cores=usable_cores()),
            cpu_clock=time.process_time,
            max_requests=config.max_requests,
            follow_ms=config.follow_ms,
        )

    def _privacy(self, bundle: Bundle) -> Privacy | None:
        """What stands beside the manifest; BundleError if it is not to be trusted."""
        found = read_privacy(bundle, trust=self._config.trust)
        limit = self._config.demand.max_similarity
        if limit < 1.0 and not _any_within(limit, found, bundle.manifest):
            log.warning(
                "nothing that was measured of this bundle's frames (`hybridge privacy`) keeps to a "
                "similarity of %g, so none leaves the device",
                limit,
            )
        return found

    def _auditor(self, assurance: Assurance, demand: Demand) -> Auditor | None:
        """Of the guarantee that was asked for; ConfigError if the bundle cannot give it."""
        config, least = self._config, demand.enough
        if least is None:
            return None
        if demand.min_agreement is not None:
            found = assurance.require(least)
            log.info(
                "answers at least %.4g sure stand (%.0f %% of the evaluation pictures): %s",
                found.confidence,
                100 * found.share_local,
                found.level,
            )
        elif refusal := assurance.refusal(least):
            log.warning(
                "objective %s keeps to %g, which is not guaranteed for the light model's own "
                "answers, so the cloud is asked: %s",
                demand.objective,
                least,
                refusal,
            )
        return Auditor(least, delta=config.delta, settings=config.audit)

    async def _connect(self, agent: Agent, cloud: Address) -> None:
        security, model = self._config.security, agent.manifest.name
        most_answer_bytes = most_bytes_of_answers(agent.manifest)
        uplink = Uplink(
            lambda: GrpcConnection(
                cloud, security=security, model=model, most_answer_bytes=most_answer_bytes
            ),
            clock=monotonic,
            name=str(cloud),
            misfit=lambda: security.misfit(cloud),
        )
        await uplink.startup()
        agent.uplink = uplink

    async def _find_cloud(self, agent: Agent) -> None:
        while agent.uplink is None:
            try:
                cloud = await asyncio.to_thread(find_cloud)
                log.info("found a cloud at %s", cloud)
                await self._connect(agent, cloud)
            except RemoteUnavailable as error:
                log.info("%s; answering alone meanwhile", error)
            except ConfigError as error:  # no multicast here, or a cloud that asks for TLS files
                log.warning("%s; answering alone", error)
                return


async def rehearse(agent: Agent, *, max_pixels: int) -> None:
    """Answers a picture in each format once, before anybody waits for one.

    Threads, decoders and kernels start lazily, and the first request has a deadline as well. What
    these cold runs took is no measure of those to come, and forgotten.
    """
    side = math.isqrt(max_pixels)
    picture = np.ascontiguousarray(golden_picture(agent.bundle)[:side, :side])
    times, agent.times = agent.times, StageTimes({})
    for codec in ("jpeg-90", "png", "webp-90"):
        encoded = codec_by_name(codec, agent.manifest.large.pixels).encode(picture)
        await agent.answer(encoded, Deadline.after_ms(_REHEARSAL_MS, now_s=monotonic()))
    agent.times = times


def _any_within(limit: float, privacy: Privacy | None, manifest: Manifest) -> bool:
    """Whether pictures rebuilt from some split's frames were no more alike than that."""
    splits = [plan for row in manifest.table if (plan := row.parsed()).kind is PlanKind.SPLIT]
    figures = [privacy.alike(plan, manifest) for plan in splits] if privacy else []
    return any(figure is not None and figure <= limit for figure in figures)


def most_bytes_of_answers(manifest: Manifest) -> int:
    """What a cloud's answer may have: twice what the model gives, in the widest of types."""
    values = manifest.classes + sum(math.prod(spec.shape) for spec in manifest.large.outputs)
    return min(_WORDS_BYTES + 16 * values, MAX_MESSAGE_BYTES)


def stretch(profile: Profile) -> float:
    """How much longer stages take alone than their processor time: 4 on a quarter of a core."""
    long = [s.p50_ms / s.cpu_ms for s in profile.stages.values() if s.cpu_ms >= _LONG_MS]
    return median(long) if long else 1.0


def ready_profile(bundle: Bundle, models: DeviceModels) -> Profile:
    """This machine's own profile of a bundle for so many threads.

    At first start the bundle is tested and measured, quickly and in this process; `hybridge
    profile` does it with more care. An estimate is never used: what a machine can measure, it does.
    """
    device = probe()
    try:
        known = load_profile(
            bundle.profiles, device, bundle_sha256=bundle.sha256, threads=models.threads
        )
    except ConfigError as error:  # a power cut may leave half a file
        log.warning("%s; it is measured anew", error)
        known = None
    if known is not None and known.stages.keys() >= {*stage_names(bundle.manifest)}:
        return known
    log.info("first start with this bundle on this machine: testing and measuring it")
    self_test(bundle, threads=models.threads)
    watch = Watch()
    stages = measure_stages(models, golden_picture(bundle), runs=20)
    profile = Profile(
        device=device,
        bundle_sha256=bundle.sha256,
        stages=stages,
        threads=models.threads,
        conditions=watch.conditions(),
        yardstick_ms=measure_yardstick(),
        measured_on=today(),
    )
    for warning in profile.conditions.warnings():
        log.warning("while measuring: %s", warning)
    try:
        save_profile(profile, bundle.profiles)
    except ConfigError as error:
        log.warning("%s; it will be measured again at the next start", error)
    return profile


async def serve(config: EdgeConfig, *, on_listening: OnListening | None = None) -> None:
    """Runs an edge until SIGINT or SIGTERM; ConfigError or BundleError if it cannot start."""
    await daemon.serve(EdgeDaemon(config), on_listening=on_listening)

"""The executor that a configuration asks for."""

import asyncio
import logging

from ...shared.cores import usable_cores
from ...shared.errors import ConfigError
from ..config import CloudConfig, Engine
from .executor import Executor
from .pool import ReplicaPool
from .process import ProcessReplica
from .scaling import Bounds
from .threads import Threads

log = logging.getLogger(__name__)

_PROCESS_START_S, _PROCESS_HOP_MS = 3.0, 0.5
_ACTOR_START_S, _ACTOR_HOP_MS = 10.0, 5.0
"""Until they are measured."""


async def executor_of(config: CloudConfig) -> Executor:
    """Not started yet; ConfigError if it cannot be had here."""
    if config.engine is Engine.RAY:
        return await _on_ray(config)
    if not config.workers:
        return Threads(config.instances)
    wanted, cores = config.workers * config.instances, usable_cores()
    if wanted > cores:
        log.warning(
            "%d workers of %d instances compute on %d cores; they will wait for each other",
            config.workers, config.instances, cores,
        )  # fmt: skip

    def make(name: str) -> ProcessReplica:
        return ProcessReplica(name, slots=config.instances)

    return ReplicaPool(
        make,
        bounds=Bounds(least=config.workers, most=config.workers),
        slots=config.instances,
        start_s=_PROCESS_START_S,
        hop_ms=_PROCESS_HOP_MS,
    )


async def join(config: CloudConfig) -> None:
    """Joins the Ray cluster of a configuration, if it has one.

    Ray catches SIGTERM: whoever wants it comes later. It forks: nothing has begun gRPC by then.
    """
    if config.engine is not Engine.RAY:
        return
    try:
        from . import ray_actor  # with the extra `ray` alone
    except ImportError as error:
        raise ConfigError(
            f'{error.name} is not installed; pip install "hybridge[cloud,ray]"'
        ) from error
    try:
        await asyncio.to_thread(ray_actor.join, config.ray_address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"cannot join the Ray cluster: {error}") from error


async def _on_ray(config: CloudConfig) -> Executor:
    await join(config)
    from .ray_actor import RayReplica

    def make(name: str) -> RayReplica:
        return RayReplica(name, slots=config.instances)

    return ReplicaPool(
        make,
        bounds=Bounds(least=config.least_workers, most=config.workers, idle_s=config.idle_worker_s),
        slots=config.instances,
        start_s=_ACTOR_START_S,
        hop_ms=_ACTOR_HOP_MS,
    )

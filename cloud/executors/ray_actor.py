"""A replica as an actor of a Ray cluster, which places it on a node and tells when that dies.

Ray's own proxy would add milliseconds to each request; here it carries batches alone, its object
store the large ones. Every node needs this package, and the bundles at the same path.
"""

import asyncio
import os
import threading
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from .far_end import FarEnd
from .parcel import Parcel
from .replica import Replica, ReplicaLost


def join(address: str | None) -> None:
    """Joins a cluster, or begins one on this machine; blocking; once for a process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tells nobody unless told to
    if not ray.is_initialized():
        ray.init(
            address=address,
            log_to_driver=False,
            include_dashboard=False if address is None else None,
            configure_logging=False,
        )


class Actor:
    """The far end; as many calls at a time as Ray was told, each in a thread."""

    def __init__(self) -> None:
        self._far_end = FarEnd()

    def hello(self) -> int:
        """The process that lives now."""
        return os.getpid()

    def live(self) -> None:
        """Never returns, so that whoever waits for it learns of the end."""
        threading.Event().wait()

    def obey(self, head: bytes, *buffers: Any) -> tuple[bytes, list[Any]]:
        told = self._far_end.obey(Parcel(head, [memoryview(each) for each in buffers]))
        return told.head, [np.frombuffer(each, np.uint8) for each in told.buffers]


class RayReplica(Replica):
    """Runs `slots` batches at a time, and takes as many cores of its node."""

    def __init__(self, name: str, *, slots: int) -> None:
        self.name = name
        self._slots = slots
        self.far_pid: int | None = None
        self._actor: Any = None
        self._life: asyncio.Future[None] | None = None

    async def start(self) -> None:
        kind = ray.remote(Actor).options(
            num_cpus=self._slots,
            max_restarts=0,  # it would come back without its stages
            max_task_retries=0,  # whether there is time for that is ours to know
            max_concurrency=self._slots + 2,
        )
        self._actor = kind.remote()
        self.far_pid = await _got(self._actor.hello.remote())
        self._life = asyncio.ensure_future(_got(self._actor.live.remote()))

    async def call(self, order: Parcel) -> Parcel:
        buffers = [np.frombuffer(each, np.uint8) for each in order.buffers]
        head, told = await _got(self._actor.obey.remote(order.head, *buffers))
        return Parcel(head, [memoryview(each) for each in told])

    async def ended(self) -> str:
        assert self._life is not None
        try:
            await asyncio.shield(self._life)
        except ReplicaLost as error:
            return str(error)
        return "it ended"

    async def stop(self, *, at_once: bool = False) -> None:
        """At once in any case: an actor that is killed answers no more."""
        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None
        if self._life is not None:
            await asyncio.gather(self._life, return_exceptions=True)


async def _got(reference: Any) -> Any:
    try:
        return await reference
    except RayError as error:
        lines = str(error).splitlines() or [""]
        raise ReplicaLost(f"{type(error).__name__}: {lines[0]}") from error

"""Loads stages behind the traffic's back, or when the first request for one comes."""

import asyncio
import logging
import weakref
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from ..shared.deadline import Clock, Deadline, monotonic
from ..shared.errors import DeadlineUnmet, HybridgeError, UnknownModel
from .stage import Stage
from .worker import Worker

log = logging.getLogger(__name__)


class Loader:
    """Brings stages to a worker, each once. All methods belong to one event loop."""

    def __init__(self, worker: Worker, *, clock: Clock = monotonic) -> None:
        self._worker = worker
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._tasks: dict[Stage, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._gone: weakref.WeakSet[Stage] = weakref.WeakSet()

    def start(self, stages: Iterable[Stage]) -> None:
        """Loads stages in the background, one after the other."""
        task = asyncio.create_task(self._load_all(list(stages)))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def finished(self) -> None:
        """Returns once everything `start` was given is loaded, or was found not to load."""
        for task in tuple(self._background):
            await asyncio.shield(task)

    async def ready(self, stage: Stage, *, deadline: Deadline) -> None:
        """Returns once a stage takes work; DeadlineUnmet if it does not in time."""
        if self._worker.cost(stage) is not None:
            return
        if stage in self._gone:
            raise UnknownModel(f"{stage.key} was unloaded")
        try:
            async with asyncio.timeout(max(0.0, deadline.left_ms(self._clock()) / 1e3)):
                await asyncio.shield(self._task(stage))
        except TimeoutError:
            raise DeadlineUnmet(f"{stage.key} is still being loaded") from None

    async def forget(self, stages: Collection[Stage]) -> None:
        """Loads none of these any more, and returns once none is being loaded."""
        self._gone.update(stages)
        tasks = [self._tasks.pop(stage) for stage in stages if stage in self._tasks]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Stops loading."""
        tasks = [*self._tasks.values(), *self._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _task(self, stage: Stage) -> asyncio.Task[None]:
        if stage not in self._tasks:
            self._tasks[stage] = asyncio.create_task(self._load(stage))
        return self._tasks[stage]

    async def _load(self, stage: Stage) -> None:
        await asyncio.get_running_loop().run_in_executor(self._pool, stage.load)
        await self._worker.add_stage(stage)
        log.info("%s: %.1f ms for one", stage.key, stage.cost.predict_ms(1))

    async def _load_all(self, stages: list[Stage]) -> None:
        for stage in stages:
            if stage in self._gone:
                continue
            try:
                await asyncio.shield(self._task(stage))
            except HybridgeError as error:
                log.warning("%s cannot be loaded: %s", stage.key, error)
            except Exception:  # the other stages are still wanted
                log.exception("defect while loading %s", stage.key)

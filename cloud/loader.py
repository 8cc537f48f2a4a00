"""Brings graphs into memory and out of it, as the residence decides, while requests wait."""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from ..shared.deadline import Clock, Deadline, monotonic
from ..shared.errors import (
    DeadlineRefused,
    DeadlineUnmet,
    HybridgeError,
    ModelFault,
    Overloaded,
    UnknownModel,
)
from ..shared.sizes import written_bytes
from .job import StageKey
from .memory import give_back, resident_bytes
from .residence import Eviction, Limits, Residence
from .stage import Stage
from .statistics import Statistics
from .worker import Worker

log = logging.getLogger(__name__)


class Lease:
    """A graph that stays in memory until the end of a `with` block."""

    __slots__ = ("_call", "_end")

    def __init__(self, end: Callable[[int], None], call: int) -> None:
        self._end = end
        self._call = call

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(self._call)


class Loader:
    """Brings stages to a worker and takes them away. All methods belong to one event loop."""

    def __init__(
        self,
        worker: Worker,
        *,
        limits: Limits | None = None,
        statistics: Statistics | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self.residence = Residence(limits or Limits())
        self._worker = worker
        self._statistics = statistics
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._stages: dict[StageKey, Stage] = {}
        self._faults: dict[StageKey, HybridgeError] = {}
        self._waiting: dict[StageKey, dict[asyncio.Future[None], int]] = {}
        """Who waits for a stage, and its rank."""
        self._loading: dict[StageKey, asyncio.Task[None]] = {}
        self._evicting: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None

    def add(self, stages: Iterable[Stage]) -> None:
        """Takes charge of stages; those that are loaded where they run take work at once."""
        for stage in stages:
            if stage.key in self._stages:
                continue
            there = stage.loaded and self._worker.executor.here
            self._stages[stage.key] = stage
            self.residence.add(
                stage.key,
                shared_bytes=stage.shared_bytes,
                own_bytes=stage.own_bytes,
                now_s=self._clock(),
                loaded=there,
            )
            if there:
                self._worker.add_stage(stage)
        self._pump()

    def start(self, stages: Iterable[Stage]) -> None:
        """Loads stages in the background, one after the other."""
        task = asyncio.create_task(self._load_all(list(stages)))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def finished(self) -> None:
        """Returns once everything `start` was given is loaded, or was found not to load."""
        for task in tuple(self._background):
            await asyncio.shield(task)

    async def ready(
        self, stage: Stage, *, deadline: Deadline | None, items: int = 1, rank: int = 0
    ) -> Lease:
        """A lease on a stage that takes work, once it does.

        DeadlineRefused at once if its loading and its computing are forecast to take longer than
        is left, Overloaded if too many not behind its rank wait for it already, DeadlineUnmet if it
        is not there at the deadline, or whatever its loading raises.
        """
        key = stage.key
        if self._stages.get(key) is not stage:
            raise UnknownModel(f"{key} was unloaded")
        now_s = self._clock()
        ready = self.residence.ready(key)
        if not ready:
            self._admit(stage, deadline, items, rank, now_s)
        deadline_s = math.inf if deadline is None else deadline.at_s
        call = self.residence.call(key, deadline_s=deadline_s, now_s=now_s)
        lease = Lease(self._end, call)
        if not ready:
            try:
                await self._arrival(stage, deadline, rank)
            except BaseException:
                self._end(call)
                raise
        return lease

    async def forget(self, stages: Collection[Stage]) -> None:
        """Has none of these any more; returns once none is being loaded and none takes work."""
        mine = [stage for stage in stages if self._stages.get(stage.key) is stage]
        for stage in mine:
            del self._stages[stage.key]
            self.residence.give_up(stage.key)
            self._settle(stage.key, UnknownModel(f"{stage.key} was unloaded"))
        busy = [task for stage in mine if (task := self._loading.get(stage.key))]
        models = {(stage.key.model, stage.key.version) for stage in mine}
        busy += [task for model, task in self._evicting.items() if model in models]
        await asyncio.gather(*busy, return_exceptions=True)
        for stage in mine:
            await self._worker.remove_stage(stage)
            self._faults.pop(stage.key, None)
            self.residence.remove(stage.key)
        for stage in mine:
            await asyncio.get_running_loop().run_in_executor(self._pool, stage.unload)
        self._pump()

    async def close(self) -> None:
        """Stops loading."""
        if self._alarm is not None:
            self._alarm.cancel()
        tasks = [*self._loading.values(), *self._evicting.values(), *self._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _admit(
        self, stage: Stage, deadline: Deadline | None, items: int, rank: int, now_s: float
    ) -> None:
        """Raises what a call for a stage that is not there can be told at once."""
        key = stage.key
        waiting = sum(other <= rank for other in self._waiting.get(key, {}).values())
        if waiting >= self._worker.queue_limit:
            raise Overloaded(f"{waiting} requests are waiting for {key} to be loaded")
        if self.residence.barred(key, now_s=now_s):
            fault = self._faults[key]
            raise type(fault)(*fault.args)
        if deadline is None:
            return
        wait_ms = self.residence.forecast_ms(key, deadline_s=deadline.at_s, now_s=now_s)
        if wait_ms is None or stage.known_cost is None:
            return
        own_ms, left_ms = stage.known_cost.predict_ms(items), deadline.left_ms(now_s)
        if wait_ms + own_ms > left_ms:
            self.residence.wish(key)
            self._pump()
            raise DeadlineRefused(
                f"forecast {wait_ms:.1f} ms of loading and {own_ms:.1f} ms of computing, "
                f"{left_ms:.1f} ms are left"
            )

    async def _arrival(self, stage: Stage, deadline: Deadline | None, rank: int) -> None:
        """Returns once a stage is there that was not."""
        left_s = None if deadline is None else max(0.0, deadline.left_ms(self._clock()) / 1e3)
        arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(stage.key, {})
        waiting[arrival] = rank
        self._pump()
        try:
            async with asyncio.timeout(left_s):
                await arrival
        except TimeoutError:
            loading = stage.key in self._loading
            raise DeadlineUnmet(
                f"{stage.key} is still being loaded"
                if loading
                else f"{stage.key} is not in memory, and others that are in use leave no room"
            ) from None
        finally:
            del waiting[arrival]
            if not waiting and self._waiting.get(stage.key) is waiting:
                del self._waiting[stage.key]

    def _end(self, call: int) -> None:
        self.residence.end(call, now_s=self._clock())
        idles = self.residence.limits.idle_s is not None and self._alarm is None
        if self._waiting or idles:
            self._pump()

    def _pump(self) -> None:
        """Does what the residence says now."""
        step = self.residence.next(now_s=self._clock())
        for eviction in step.evict:
            task = asyncio.create_task(self._evict(eviction))
            self._evicting[eviction.model] = task
        if step.load is not None:
            self._loading[step.load] = asyncio.create_task(self._load(self._stages[step.load]))
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if step.wake_s is not None:
            delay_s = max(0.0, step.wake_s - self._clock())
            self._alarm = asyncio.get_running_loop().call_later(delay_s, self._pump)

    async def _load(self, stage: Stage) -> None:
        key, started_s = stage.key, self._clock()
        fault: HybridgeError | None = None
        grown_bytes = 0
        try:
            grown_bytes = await asyncio.get_running_loop().run_in_executor(
                self._pool, _load_here, stage
            )
            if self._stages.get(key) is stage:
                await self._worker.open_stage(stage)
        except HybridgeError as error:
            log.warning("%s cannot be loaded: %s", key, error)
            fault = error
        except Exception as error:  # the others are still wanted
            log.exception("defect while loading %s", key)
            fault = ModelFault(f"{key} cannot be loaded: {type(error).__name__}: {error}")
        finally:
            del self._loading[key]
        now_s = self._clock()
        took_s = now_s - started_s
        if fault is not None:
            self._faults[key] = fault
            self.residence.failed(key, now_s=now_s)
        else:
            self.residence.loaded(key, grown_bytes=grown_bytes, took_ms=stage.load_ms, now_s=now_s)
            _tell(stage, took_s)
        if self._statistics is not None:
            self._statistics.of(key.model, key.version).loaded(took_s, failed=fault is not None)
        self._settle(key, fault)
        self._pump()

    async def _evict(self, eviction: Eviction) -> None:
        stages = [self._stages[key] for key in eviction.stages if key in self._stages]
        for stage in stages:
            await self._worker.remove_stage(stage)
        await asyncio.get_running_loop().run_in_executor(self._pool, _unload_here, stages)
        del self._evicting[eviction.model]
        self.residence.evicted(eviction.model)
        log.info("%s/%s unloaded: %s", *eviction.model, eviction.reason)
        if self._statistics is not None:
            self._statistics.of(*eviction.model).evictions[eviction.reason] += 1
        self._pump()

    def _settle(self, key: StageKey, fault: HybridgeError | None) -> None:
        for arrival in self._waiting.pop(key, ()):
            if arrival.done():
                continue
            if fault is None:
                arrival.set_result(None)
            else:
                arrival.set_exception(type(fault)(*fault.args))

    async def _load_all(self, stages: list[Stage]) -> None:
        for stage in stages:
            try:
                with await self.ready(stage, deadline=None):
                    pass
            except HybridgeError as error:  # whoever loaded it has said so
                log.debug("%s: %s", stage.key, error)


def _load_here(stage: Stage) -> int:
    """Loads a stage; by how much the process has grown."""
    before_bytes = resident_bytes()
    stage.load()
    return resident_bytes() - before_bytes


def _unload_here(stages: list[Stage]) -> None:
    for stage in stages:
        stage.unload()
    give_back()


def _tell(stage: Stage, took_s: float) -> None:
    cost_ms = stage.cost.predict_ms(1)
    log.info("%s: %.1f ms for one, loaded in %.2f s", stage.key, cost_ms, took_s)
    if (offloaded := stage.offloaded) is not None:
        log.warning(
            "%s does not fit: %s of its weights stay in memory, %s are read for every run; "
            "%.1f ms for one, %.1f times the %.1f ms it would take with all in memory",
            stage.key,
            written_bytes(offloaded.resident_bytes),
            written_bytes(offloaded.read_bytes),
            offloaded.run_ms,
            offloaded.slowdown,
            offloaded.computing_ms,
        )

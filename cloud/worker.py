"""Drives the scheduler: an event loop around it, and a sized pool of threads that compute."""

import asyncio
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from ..shared.deadline import Clock, Deadline, monotonic
from ..shared.errors import DeadlineUnmet, UnknownModel
from ..shared.side import Tensors
from .cost import OnlineCost
from .scheduler import Batch, Job, Scheduler, StageKey
from .stage import Stage
from .work import Answer, Execution, Load, Work, execute

OnExecution = Callable[[StageKey, Execution], None]

_AT_ONCE_MS = 0.1
"""To hand a batch to a thread and back takes as long; what takes less is computed on the loop."""


class Worker:
    """Computes what is submitted, on `instances` threads. All methods belong to one event loop."""

    def __init__(
        self,
        *,
        instances: int,
        queue_limit: int,
        on_execution: OnExecution | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self._scheduler = Scheduler(instances=instances, queue_limit=queue_limit)
        self._pool = ThreadPoolExecutor(instances, thread_name_prefix="instance")
        self._on_execution = on_execution
        self._clock = clock
        self._stages: dict[StageKey, Stage] = {}
        self._works: dict[int, Work] = {}
        self._leaving: dict[StageKey, asyncio.Event] = {}
        self._ids = itertools.count()
        self._alarm: asyncio.TimerHandle | None = None

    def add_stage(self, stage: Stage) -> None:
        """Takes work for a loaded stage from now on."""
        if stage.key not in self._stages:
            self._stages[stage.key] = stage
            self._scheduler.add_stage(stage.key, stage.cost)

    async def remove_stage(self, stage: Stage) -> None:
        """Takes no more work for a stage, and forgets it once what was accepted has ended."""
        if self._stages.get(stage.key) is not stage:
            return
        idle = self._leaving[stage.key] = asyncio.Event()
        try:
            while any(work.job.stage == stage.key for work in self._works.values()):
                idle.clear()
                await idle.wait()
        finally:
            del self._leaving[stage.key]
        del self._stages[stage.key]
        self._scheduler.remove_stage(stage.key)

    def cost(self, stage: Stage) -> OnlineCost | None:
        """What a stage costs lately; None before `add_stage`."""
        return self._scheduler.cost(stage.key) if stage.key in self._stages else None

    @property
    def queue_limit(self) -> int:
        """How many requests may wait for a model."""
        return self._scheduler.queue_limit

    def queued(self, model: str) -> int:
        """Requests waiting for a model."""
        return self._scheduler.queued(model)

    @property
    def running(self) -> int:
        """Batches that are being computed."""
        return self._scheduler.running

    def forecast_ms(self) -> float:
        """How long a request that arrived now would wait."""
        return self._scheduler.forecast_ms(now_s=self._clock())

    async def run(
        self,
        stage: Stage,
        *,
        load: Load,
        at_hand: bool = False,
        items: int,
        deadline: Deadline,
        sides: Tensors | None = None,
    ) -> Answer:
        """The answer of a stage to what `load` makes and to what came beside it.

        Raises Overloaded or DeadlineRefused at once if it cannot be had in time, DeadlineUnmet at
        the deadline if it was not, else whatever `load` or the model raises.
        """
        if self._stages.get(stage.key) is not stage or stage.key in self._leaving:
            raise UnknownModel(f"{stage.key} was unloaded")
        loop = asyncio.get_running_loop()
        now_s = self._clock()
        job = Job(
            id=next(self._ids),
            stage=stage.key,
            items=items,
            arrived_s=now_s,
            deadline_s=deadline.at_s,
        )
        self._scheduler.submit(job, now_s=now_s)
        work = Work(
            job=job,
            load=load,
            at_hand=at_hand,
            sides=sides or {},
            answer=loop.create_future(),
        )
        self._works[job.id] = work
        alarm: asyncio.TimerHandle | None = None
        try:
            self._pump()
            if not work.answer.done():
                alarm = loop.call_later(deadline.left_ms(now_s) / 1e3, _overdue, work)
            outcome = await work.answer
        finally:
            del self._works[job.id]
            self._scheduler.cancel(job)
            if alarm is not None:
                alarm.cancel()
            if idle := self._leaving.get(stage.key):
                idle.set()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def close(self) -> None:
        """Takes no more work; what runs is left to end by itself."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _pump(self) -> None:
        """Does what the scheduler says until it says to wait."""
        while True:
            step = self._scheduler.next(now_s=self._clock())
            for job in step.dropped:
                fault = DeadlineUnmet("it could no longer be met while the request waited")
                _settle(self._works[job.id], fault)
            if step.batch is None:
                break
            self._start(step.batch)
        self._set_alarm(step.wake_s)

    def _start(self, batch: Batch) -> None:
        works = [self._works[job.id] for job in batch.jobs]
        stage = self._stages[batch.stage]
        compute = partial(execute, works, stage=stage, clock=self._clock)
        if (
            batch.predicted_ms <= _AT_ONCE_MS
            and stage.bounded
            and all(work.at_hand for work in works)
        ):
            self._finish(batch, works, compute())
        else:
            future = asyncio.get_running_loop().run_in_executor(self._pool, compute)
            future.add_done_callback(partial(self._finished, batch, works))

    def _finished(self, batch: Batch, works: list[Work], future: asyncio.Future[Execution]) -> None:
        if not future.cancelled():  # closed before it ran
            self._finish(batch, works, future.result())
            self._pump()

    def _finish(self, batch: Batch, works: list[Work], execution: Execution) -> None:
        self._scheduler.finish(batch, now_s=self._clock(), items=execution.items)
        if self._on_execution is not None:
            self._on_execution(batch.stage, execution)
        for work, outcome in zip(works, execution.outcomes, strict=True):
            _settle(work, outcome)

    def _set_alarm(self, wake_s: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if wake_s is not None:
            delay_s = max(0.0, wake_s - self._clock())
            self._alarm = asyncio.get_running_loop().call_later(delay_s, self._pump)


def _settle(work: Work, outcome: Answer | Exception | None) -> None:
    if outcome is not None and not work.unwanted:
        work.answer.set_result(outcome)


def _overdue(work: Work) -> None:
    _settle(work, DeadlineUnmet("it passed before the answer was there"))

"""Drives the scheduler: an event loop around it, and an executor that carries out its batches."""

import asyncio
import itertools
from collections.abc import Callable
from functools import partial

from ..shared.deadline import Clock, Deadline, monotonic
from ..shared.errors import (
    DeadlineRefused,
    DeadlineUnmet,
    InstanceLost,
    Overloaded,
    UnknownModel,
)
from ..shared.side import Tensors
from .cost import SURE, Cost, OnlineCost, Recent
from .executors.executor import Demand, Executor
from .job import Job, StageKey
from .scheduler import Batch, Scheduler
from .shares import Shares
from .stage import Stage
from .work import Answer, Errand, Execution, Load, Work, execute

_SPARE_MS = 3.0
"""For what a timer and an event loop are late by."""

OnExecution = Callable[[StageKey, Execution], None]

_HANDOVERS = 64


class Worker:
    """Computes what is submitted, by an executor. All methods belong to one event loop.

    What dies with an instance is tried once more if there is time.
    """

    def __init__(
        self,
        *,
        executor: Executor,
        queue_limit: int,
        shares: Shares | None = None,
        on_execution: OnExecution | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self.executor = executor
        self._scheduler = Scheduler(
            instances=executor.capacity.instances,
            queue_limit=queue_limit,
            shares=shares or Shares(),
        )
        self._on_execution = on_execution
        self._clock = clock
        self._stages: dict[StageKey, Stage] = {}
        self._works: dict[int, Work] = {}
        self._leaving: dict[StageKey, asyncio.Event] = {}
        self._ids = itertools.count()
        self._tried: set[int] = set()
        self._refused = 0
        self._handovers_ms = Recent(_HANDOVERS)
        self._alarm: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Has the executor get ready."""
        await self.executor.start(demand=self._demand, changed=self._resized)
        self._resized()

    async def open_stage(self, stage: Stage) -> None:
        """Has a loaded stage opened where it will run, and takes work for it from then on."""
        if stage.key not in self._stages:
            self.add_stage(stage, await self.executor.open(stage))

    def add_stage(self, stage: Stage, cost: Cost | None = None) -> None:
        """Takes work for a stage from now on; one that runs here needs no opening."""
        if stage.key not in self._stages:
            self._stages[stage.key] = stage
            self._scheduler.add_stage(stage.key, cost or stage.cost)

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
        await self.executor.let_go(stage)

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

    @property
    def handover_ms(self) -> float:
        """What lately passed almost at most between a batch's end and the event loop's notice.

        Where all cores compute, the kernel lets whoever wakes up wait for milliseconds.
        """
        return self._handovers_ms.quantile(SURE)

    def forecast_ms(self) -> float:
        """How long a request of the default priority that arrived now would wait."""
        return self._scheduler.forecast_ms(now_s=self._clock())

    def needs_ms(self, stage: Stage, *, items: int, rank: int = 0) -> float:
        """How long before its deadline a request should be submitted to be answered in time."""
        now_s = self._clock()
        own_ms = self._scheduler.cost(stage.key).at(now_s).surely_ms(items)
        return self._scheduler.forecast_ms(now_s=now_s, rank=rank) + own_ms + _SPARE_MS

    async def run(
        self,
        stage: Stage,
        *,
        load: Load,
        at_hand: bool = False,
        items: int,
        deadline: Deadline,
        rank: int = 0,
        sides: Tensors | None = None,
    ) -> Answer:
        """The answer of a stage to what `load` makes and to what came beside it.

        What is `at_hand` takes no time to load.

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
            rank=rank,
            turn_s=deadline.turn_s,
        )
        batch = self._scheduler.at_once(job, now_s=now_s)
        if batch is not None and at_hand and self.executor.at_once(stage, items):
            return self._compute(batch, stage, Errand(job=job, load=load, sides=sides or {}))
        if batch is None:
            try:
                self._scheduler.submit(job, now_s=now_s)
            except (DeadlineRefused, Overloaded):
                self._refused += 1
                raise
        work = Work(
            job=job,
            load=load,
            sides=sides or {},
            answer=loop.create_future(),
        )
        self._works[job.id] = work
        alarm: asyncio.TimerHandle | None = None
        try:
            if batch is None:
                self._pump()
            else:
                self._start(batch)
            alarm = loop.call_later(deadline.left_ms(now_s) / 1e3, _overdue, work)
            outcome = await work.answer
        finally:
            del self._works[job.id]
            self._tried.discard(job.id)
            self._scheduler.cancel(job)
            if alarm is not None:
                alarm.cancel()
            if idle := self._leaving.get(stage.key):
                idle.set()
        if isinstance(outcome, Exception):
            try:
                raise outcome
            finally:  # else the fault keeps this frame, and the frame the fault and its input
                del outcome, work
        return outcome

    async def close(self) -> None:
        """Takes no more work; what runs in threads is left to end by itself."""
        if self._alarm is not None:
            self._alarm.cancel()
        await self.executor.close()

    def _demand(self) -> Demand:
        return Demand(
            unanswered=len(self._works), refused=self._refused, forecast_ms=self.forecast_ms()
        )

    def _resized(self) -> None:
        self._scheduler.resize(self.executor.capacity)
        self._pump()

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
        future = self.executor.run(works, self._stages[batch.stage])
        future.add_done_callback(partial(self._finished, batch, works))

    def _compute(self, batch: Batch, stage: Stage, errand: Errand) -> Answer:
        """Here and now, which takes less than to hand it over."""
        execution = execute((errand,), stage=stage, clock=self._clock)
        self._executed(batch, execution)
        (outcome,) = execution.outcomes
        if isinstance(outcome, Answer):
            return outcome
        assert outcome is not None
        try:
            raise outcome
        finally:  # as in `run`
            del outcome, execution

    def _finished(self, batch: Batch, works: list[Work], future: asyncio.Future[Execution]) -> None:
        if future.cancelled():  # closed before it ran
            return
        error = future.exception()
        if error is None:
            execution = future.result()
            self._handovers_ms.add(self._executed(batch, execution) - execution.took_ms)
            for work, outcome in zip(works, execution.outcomes, strict=True):
                _settle(work, outcome)
        else:
            self._scheduler.finish(batch, now_s=self._clock(), items=0)
            for work in works:
                self._failed(work, error)
        self._pump()

    def _executed(self, batch: Batch, execution: Execution) -> float:
        """For how many milliseconds it has taken an instance."""
        now_s = self._clock()
        if self._on_execution is not None:
            self._on_execution(batch.stage, execution)
        return self._scheduler.finish(batch, now_s=now_s, items=execution.items)

    def _failed(self, work: Work, error: BaseException) -> None:
        """What was lost with an instance is queued once more; the rest is told at once."""
        if work.unwanted:
            return
        if isinstance(error, InstanceLost):
            self._try_again(work, error)
        else:  # a defect: whoever asked gets it as it is
            work.answer.set_exception(error)

    def _try_again(self, work: Work, lost: InstanceLost) -> None:
        now_s = self._clock()
        if work.job.deadline_s <= now_s:
            _settle(work, DeadlineUnmet("it passed before the answer was there"))
            return
        if work.job.id in self._tried:
            _settle(work, InstanceLost(f"{lost}, as did the one that tried before it"))
            return
        self._tried.add(work.job.id)
        try:
            self._scheduler.submit(work.job, now_s=now_s)
        except (DeadlineRefused, Overloaded) as refusal:
            _settle(work, InstanceLost(f"{lost}; for another try, {refusal}"))

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

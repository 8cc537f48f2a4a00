"""Which work runs next: earliest deadline first, in batches, never what cannot be in time.

Pure: jobs and a clock reading go in, batches and refusals come out; no threads, sockets or clocks.
`cloud/worker.py` drives it.

Of all orders on one instance, earliest deadline first makes the worst lateness smallest (Jackson,
"Scheduling a production line to minimize maximum tardiness", 1955). Admission keeps that below
zero: the queue is played forward with the newcomer in it, and the newcomer is refused if it would
be late itself, or make late what was accepted before it.

Every accepted job ends in exactly one way: in a batch, among a step's `dropped`, or cancelled.
"""

import heapq
from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter

from ..shared.errors import DeadlineRefused, Overloaded
from .cost import Cost, OnlineCost


@dataclass(frozen=True, slots=True, order=True)
class StageKey:
    """One graph of one version of one model; `cut` is empty for the whole."""

    model: str
    version: str
    cut: str = ""

    def __str__(self) -> str:
        return f"{self.model}/{self.version}/{self.cut or 'whole'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request's computation: `items` inputs for a stage, wanted by `deadline_s`."""

    id: int
    stage: StageKey
    items: int
    arrived_s: float
    deadline_s: float

    @property
    def order(self) -> tuple[float, int]:
        return (self.deadline_s, self.id)


_ORDER = attrgetter("order")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """`instances` compute now; one more from each instant of `coming_s`.

    Where there is none at all, there is one so long after it is asked for: `on_demand_s`.
    """

    instances: int
    coming_s: tuple[float, ...] = ()
    on_demand_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Jobs of one stage that run together, from `started_s` for about `predicted_ms`."""

    id: int
    stage: StageKey
    jobs: tuple[Job, ...]
    started_s: float
    predicted_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is to be done now.

    Run `batch`, refuse `dropped`, and ask again: at once after a batch, else at `wake_s`, when a
    job arrives or when a batch finishes.
    """

    batch: Batch | None = None
    dropped: tuple[Job, ...] = ()
    wake_s: float | None = None


@dataclass(slots=True)
class _Group:
    jobs: tuple[Job, ...]
    hopeless: tuple[Job, ...]
    full: bool

    @property
    def items(self) -> int:
        return sum(job.items for job in self.jobs)

    @property
    def scanned(self) -> int:
        return len(self.jobs) + len(self.hopeless)


@dataclass(slots=True)
class _Forecast:
    """When each job would be done, and when the first instance would be free after all of them."""

    finish_s: dict[int, float]
    idle_s: float


@dataclass(kw_only=True)
class Scheduler:
    """The queues of all stages before `instances` that compute in parallel."""

    instances: int
    queue_limit: int
    _coming_s: tuple[float, ...] = ()
    _on_demand_s: float = 0.0
    _costs: dict[StageKey, OnlineCost] = field(default_factory=dict)
    _queues: dict[StageKey, list[Job]] = field(default_factory=dict)
    _running: dict[int, Batch] = field(default_factory=dict)
    _batches: int = 0

    def add_stage(self, stage: StageKey, cost: Cost) -> None:
        """Makes a stage known; jobs of it may be submitted from now on."""
        self._costs[stage] = OnlineCost(cost)
        self._queues[stage] = []

    def remove_stage(self, stage: StageKey) -> None:
        """Forgets a stage; of its jobs none may be waiting, but some may run."""
        assert not self._queues[stage], f"{stage} has jobs waiting"
        del self._costs[stage], self._queues[stage]

    def resize(self, capacity: Capacity) -> None:
        """Reckons with other instances from now on; what runs is left to finish."""
        self.instances = capacity.instances
        self._coming_s = capacity.coming_s
        self._on_demand_s = capacity.on_demand_s

    def cost(self, stage: StageKey) -> OnlineCost:
        return self._costs[stage]

    @property
    def running(self) -> int:
        """Batches that have begun and not finished."""
        return len(self._running)

    def queued(self, model: str) -> int:
        """Jobs waiting for a model, all versions and stages together."""
        return sum(len(queue) for stage, queue in self._queues.items() if stage.model == model)

    def submit(self, job: Job, *, now_s: float) -> None:
        """Accepts a job, or raises Overloaded or DeadlineRefused and forgets it."""
        if (waiting := self.queued(job.stage.model)) >= self.queue_limit:
            raise Overloaded(f"{waiting} requests are waiting for {job.stage.model}")
        self._admit(job, now_s)
        insort(self._queues[job.stage], job, key=_ORDER)

    def cancel(self, job: Job) -> bool:
        """Forgets a waiting job; False if it is not waiting (any more)."""
        queue = self._queues[job.stage]
        if job not in queue:
            return False
        queue.remove(job)
        return True

    def next(self, *, now_s: float) -> Step:
        """The batch to run now, if there is an instance and work for it."""
        if len(self._running) >= self.instances:
            return Step()
        dropped: list[Job] = []
        wake_s: float | None = None
        for stage in self._stages_by_deadline():
            queue = self._queues[stage]
            group = _form(queue, self._costs[stage].at(now_s), at_s=now_s)
            dropped += group.hopeless
            del queue[: len(group.hopeless)]
            if not group.jobs:
                continue
            start_s = self._start_s(group, stage, now_s)
            if start_s <= now_s:
                del queue[: len(group.jobs)]
                return Step(batch=self._begin(stage, group, now_s), dropped=tuple(dropped))
            wake_s = start_s if wake_s is None else min(wake_s, start_s)
        return Step(dropped=tuple(dropped), wake_s=wake_s)

    def finish(self, batch: Batch, *, now_s: float, took_ms: float, items: int) -> None:
        """Frees the instance of a batch, of which `items` were computed in `took_ms`."""
        del self._running[batch.id]
        if items and batch.stage in self._costs:
            self._costs[batch.stage].observe(items, took_ms=took_ms, now_s=now_s)

    def forecast_ms(self, *, now_s: float) -> float:
        """How long a request that arrives now would wait if all before it go first."""
        return (self._play(self._queues, now_s).idle_s - now_s) * 1e3

    def _admit(self, job: Job, now_s: float) -> None:
        queue = self._queues[job.stage]
        tried = sorted((*queue, job), key=_ORDER)
        after = self._play({**self._queues, job.stage: tried}, now_s)
        done_ms = (after.finish_s[job.id] - now_s) * 1e3
        left_ms = (job.deadline_s - now_s) * 1e3
        own_ms = self._costs[job.stage].at(now_s).predict_ms(job.items)
        forecast = f"{done_ms - own_ms:.1f} ms of waiting and {own_ms:.1f} ms of computing"
        if done_ms > left_ms:
            raise DeadlineRefused(f"forecast {forecast}, {left_ms:.1f} ms are left")
        late = [other for other in self._waiting() if after.finish_s[other.id] > other.deadline_s]
        if late:
            before = self._play(self._queues, now_s)
            if any(before.finish_s[other.id] <= other.deadline_s for other in late):
                raise DeadlineRefused(f"forecast {forecast}, but accepted requests would be late")

    def _play(self, queues: dict[StageKey, list[Job]], now_s: float) -> _Forecast:
        """Plays the queues forward as `next` would run them, without lingering."""
        free = [self._free_s(batch, now_s) for batch in self._running.values()]
        free += [now_s] * (self.instances - len(free))
        free += [now_s + abs(at_s - now_s) for at_s in self._coming_s]
        free = free or [now_s + self._on_demand_s]
        heapq.heapify(free)
        heads = [(queue[0].order, stage, 0) for stage, queue in queues.items() if queue]
        heapq.heapify(heads)
        costs = {stage: self._costs[stage].at(now_s) for _, stage, _ in heads}
        finish_s: dict[int, float] = {}
        while heads:
            _, stage, at = heapq.heappop(heads)
            queue, cost, start_s = queues[stage], costs[stage], free[0]
            group = _form(queue, cost, at_s=start_s, first=at)
            for job in group.hopeless:
                finish_s[job.id] = start_s + cost.predict_ms(job.items) / 1e3
            if group.jobs:
                end_s = start_s + cost.predict_ms(group.items) / 1e3
                finish_s.update((job.id, end_s) for job in group.jobs)
                heapq.heapreplace(free, end_s)
            if (at := at + group.scanned) < len(queue):
                heapq.heappush(heads, (queue[at].order, stage, at))
        return _Forecast(finish_s=finish_s, idle_s=free[0])

    def _begin(self, stage: StageKey, group: _Group, now_s: float) -> Batch:
        self._batches += 1
        batch = Batch(
            id=self._batches,
            stage=stage,
            jobs=group.jobs,
            started_s=now_s,
            predicted_ms=self._costs[stage].at(now_s).predict_ms(group.items),
        )
        self._running[batch.id] = batch
        return batch

    def _start_s(self, group: _Group, stage: StageKey, now_s: float) -> float:
        """When a group should start: at once if full, else when its clock or its slack runs out."""
        cost = self._costs[stage].at(now_s)
        if group.full or not cost.linger_ms:
            return now_s
        clock_s = min(job.arrived_s for job in group.jobs) + cost.linger_ms / 1e3
        company_ms = cost.predict_ms(cost.batch_items)
        return min(clock_s, group.jobs[0].deadline_s - company_ms / 1e3)

    def _stages_by_deadline(self) -> Iterable[StageKey]:
        heads = [(queue[0].order, stage) for stage, queue in self._queues.items() if queue]
        return [stage for _, stage in sorted(heads)]

    def _waiting(self) -> Iterator[Job]:
        for queue in self._queues.values():
            yield from queue

    @staticmethod
    def _free_s(batch: Batch, now_s: float) -> float:
        """When a batch is expected to end; once it is overdue, in as long as it is overdue."""
        return now_s + abs(batch.started_s + batch.predicted_ms / 1e3 - now_s)


def _form(queue: list[Job], cost: Cost, *, at_s: float, first: int = 0) -> _Group:
    """The jobs of a sorted queue that would run together at an instant.

    The most urgent job that can still be in time leads; others join while the batch has room and
    the leader stays in time. `hopeless` are those before the leader.
    """
    at = first
    while at < len(queue) and _ends_s(cost, queue[at].items, at_s) > queue[at].deadline_s:
        at += 1
    hopeless = tuple(queue[first:at])
    if at == len(queue):
        return _Group((), hopeless, full=False)
    leader = queue[at]
    end, items, full = at + 1, leader.items, leader.items >= cost.batch_items
    while end < len(queue) and not full:
        more = items + queue[end].items
        full = more > cost.batch_items or _ends_s(cost, more, at_s) > leader.deadline_s
        if not full:
            items, end = more, end + 1
            full = items == cost.batch_items
    return _Group(tuple(queue[at:end]), hopeless, full=full)


def _ends_s(cost: Cost, items: int, at_s: float) -> float:
    return at_s + cost.predict_ms(items) / 1e3

"""Which work runs next: by priority, earliest deadline first, in batches, never what is too late.

Pure: jobs and a clock reading go in, batches and refusals come out; no threads, sockets or clocks.
`cloud/worker.py` drives it.

Of all orders on one instance, earliest deadline first makes the worst lateness smallest (Jackson,
"Scheduling a production line to minimize maximum tardiness", 1955). Admission keeps that below
zero: the queue is played forward with the newcomer in it, and the newcomer is refused if it would
be late itself, or make late what was accepted before it.

Priorities come before deadlines: of what waits the lowest `rank` goes first, and within a rank the
earliest deadline. What is accepted is safe from newcomers of its own rank and of those behind it
alone: one of a rank before may make it late. So the last rank may starve, but at its deadline each
job ends. A batch may hold several ranks, and while one job lingers others may run.

Every accepted job ends in exactly one way: in a batch, among a step's `dropped`, or cancelled.
"""

import heapq
import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

import msgspec

from ..shared.errors import DeadlineRefused, Overloaded
from .batching import Group, ends_s, form, in_time, room, starts_s, together
from .cost import Cost, OnlineCost
from .job import Job, StageKey
from .shares import Shares

_ORDER = attrgetter("order")
_RANK = attrgetter("rank")


@dataclass(slots=True)
class _Queue:
    """The waiting jobs of one stage in their order, and what they cost."""

    cost: OnlineCost
    jobs: list[Job] = field(default_factory=list)
    items: int = 0

    def add(self, job: Job) -> None:
        insort(self.jobs, job, key=_ORDER)
        self.items += job.items

    def remove(self, job: Job) -> bool:
        """False if it is not here."""
        at = bisect_left(self.jobs, job.order, key=_ORDER)
        if at == len(self.jobs) or self.jobs[at].id != job.id:
            return False
        self.items -= self.jobs.pop(at).items
        return True

    def take(self, count: int) -> None:
        """The first jobs are no longer waiting."""
        for job in self.jobs[:count]:
            self.items -= job.items
        del self.jobs[:count]

    @property
    def first_deadline_s(self) -> float:
        return min(job.deadline_s for job in self.jobs)

    def not_behind(self, rank: float) -> int:
        """How many would not go after every newcomer of a rank."""
        return bisect_right(self.jobs, rank, key=_RANK)

    def one_by_one_ms(self, now_s: float) -> float:
        """What all would surely take on one instance without a batch."""
        cost = self.cost.at(now_s)
        return (cost.fixed_ms * len(self.jobs) + cost.per_item_ms * self.items) * (1 + cost.slack)

    def batched_ms(self, now_s: float, rank: int) -> float:
        """What those not behind a rank would take on one instance in full batches."""
        cost = self.cost.at(now_s)
        count, items = self.not_behind(rank), self.items
        if count < len(self.jobs):
            items = sum(job.items for job in self.jobs[:count])
        runs = count if cost.batch_items == 1 else -(-items // cost.batch_items)
        return cost.fixed_ms * runs + cost.per_item_ms * items


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """`instances` compute now; one more from each instant of `coming_s`.

    Where there is none at all, there is one so long after it is asked for: `on_demand_s`. A batch
    more than instances is taken, and waits there, if one is expected to be free within `ahead_s`.
    """

    instances: int
    coming_s: tuple[float, ...] = ()
    on_demand_s: float = 0.0
    ahead_s: float = 0.0


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of one stage that run together, for about `predicted_ms` from `started_s`.

    One that was taken ahead is expected to start then.
    """

    id: int
    stage: StageKey
    jobs: tuple[Job, ...]
    started_s: float
    predicted_ms: float


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done now.

    Run `batch`, refuse `dropped`, and ask again: at once after a batch, else at `wake_s`, when a
    job arrives or when a batch finishes.
    """

    batch: Batch | None = None
    dropped: tuple[Job, ...] = ()
    wake_s: float | None = None


_NOTHING = Step()


@dataclass(kw_only=True)
class Scheduler:
    """The queues of all stages before `instances` that compute in parallel."""

    instances: int
    queue_limit: int
    shares: Shares = field(default_factory=Shares)
    _coming_s: tuple[float, ...] = ()
    _on_demand_s: float = 0.0
    _ahead_s: float = 0.0
    _queues: dict[StageKey, _Queue] = field(default_factory=dict)
    _busy: dict[StageKey, _Queue] = field(default_factory=dict)
    """Those queues in which jobs wait."""
    _running: dict[int, Batch] = field(default_factory=dict)
    _ahead: int | None = None
    """Which of the running waits for the first other to finish."""
    _batches: int = 0

    def add_stage(self, stage: StageKey, cost: Cost) -> None:
        """Makes a stage known; jobs of it may be submitted from now on."""
        self._queues[stage] = _Queue(OnlineCost(cost))

    def remove_stage(self, stage: StageKey) -> None:
        """Forgets a stage; of its jobs none may be waiting, but some may run."""
        assert not self._queues[stage].jobs, f"{stage} has jobs waiting"
        del self._queues[stage]

    def resize(self, capacity: Capacity) -> None:
        """Reckons with other instances from now on; what runs is left to finish."""
        self.instances = capacity.instances
        self._coming_s = capacity.coming_s
        self._on_demand_s = capacity.on_demand_s
        self._ahead_s = capacity.ahead_s

    def cost(self, stage: StageKey) -> OnlineCost:
        return self._queues[stage].cost

    @property
    def running(self) -> int:
        """Batches that have begun and not finished."""
        return len(self._running) - (self._ahead is not None)

    def queued(self, model: str, *, rank: float = math.inf) -> int:
        """Jobs not behind a rank that wait for a model, all versions and stages together."""
        queues = (each for stage, each in self._busy.items() if stage.model == model)
        return sum(each.not_behind(rank) for each in queues)

    def at_once(self, job: Job, *, now_s: float) -> Batch | None:
        """The batch of a job that runs now; None where it has to be submitted.

        Where nothing waits and an instance is free there is no queue to go through, unless the job
        waits for company, or cannot be in time.
        """
        self.shares.asked(job.stage.model, now_s=now_s)
        if self._busy or len(self._running) >= self.instances:
            return None
        cost = self._queues[job.stage].cost.at(now_s)
        company = cost.linger_ms > 0 and job.items < cost.batch_items
        if company or ends_s(cost, job.items, now_s) > job.deadline_s:
            return None
        return self._begin((job,), job.items, cost, now_s)

    def submit(self, job: Job, *, now_s: float) -> None:
        """Accepts a job, or raises Overloaded or DeadlineRefused and forgets it."""
        queue = self._queues[job.stage]
        self.shares.asked(job.stage.model, now_s=now_s)
        try:
            self._admit(job, queue, now_s)
        except (DeadlineRefused, Overloaded):
            cost = queue.cost.at(now_s)
            if ends_s(cost, job.items, now_s) <= job.deadline_s:
                needs_ms = cost.in_company_ms(job.items)
                self.shares.refused(job.stage.model, needs_ms, now_s=now_s)
            raise
        queue.add(job)
        self._busy[job.stage] = queue

    def cancel(self, job: Job) -> bool:
        """Forgets a waiting job; False if it is not waiting (any more)."""
        queue = self._busy.get(job.stage)
        if queue is None or not queue.remove(job):
            return False
        if not queue.jobs:
            del self._busy[job.stage]
        return True

    def next(self, *, now_s: float) -> Step:
        """The batch to run now, if there is an instance and work for it."""
        if len(self._running) >= self.instances:
            return self._next_ahead(now_s)
        dropped = self._drop(now_s)
        wake_s: float | None = None
        for stage, queue in self._in_order():
            cost = queue.cost.at(now_s)
            group = self._form(queue, cost, at_s=now_s, now_s=now_s)
            start_s = starts_s(group, cost, now_s)
            if start_s <= now_s:
                self._take(stage, len(group.jobs))
                batch = self._begin(group.jobs, group.items, cost, now_s)
                return Step(batch=batch, dropped=dropped)
            wake_s = start_s if wake_s is None else min(wake_s, start_s)
        return Step(dropped=dropped, wake_s=wake_s)

    def finish(self, batch: Batch, *, now_s: float, items: int) -> float:
        """Frees the instance of a batch, of which `items` were computed.

        It was taken from the batch's start until now, however much of that was computing: so many
        milliseconds, which are returned.
        """
        took_ms = (now_s - self._running.pop(batch.id).started_s) * 1e3
        if (waiting := self._ahead) is not None:
            self._ahead = None
            if waiting != batch.id:
                started = msgspec.structs.replace(self._running[waiting], started_s=now_s)
                self._running[waiting] = started
        self.shares.used(batch.stage.model, took_ms, now_s=now_s)
        if items and (queue := self._queues.get(batch.stage)):
            queue.cost.observe(items, took_ms=took_ms, now_s=now_s)
        return took_ms

    def forecast_ms(self, *, now_s: float, rank: int = 0) -> float:
        """How long a job that arrives now would wait if all not behind its rank go first.

        The work that waits is poured over the instances like water: the lowest fill up first.
        """
        if not self._busy and len(self._running) < self.instances:
            return 0.0
        work_s = sum(each.batched_ms(now_s, rank) for each in self._busy.values()) / 1e3
        free_s = self._free(now_s)
        level_s = free_s[0]
        for count, next_s in enumerate((*free_s[1:], math.inf), start=1):
            room_s = (next_s - level_s) * count
            if work_s <= room_s:
                return (level_s + work_s / count - now_s) * 1e3
            work_s -= room_s
            level_s = next_s
        raise AssertionError("the last instance has room for everything")

    def _drop(self, now_s: float) -> tuple[Job, ...]:
        """Forgets those at the heads of the queues that can no longer be in time."""
        dropped: list[Job] = []
        for stage, queue in [*self._busy.items()]:
            end = in_time(queue.jobs, queue.cost.at(now_s), at_s=now_s)
            dropped += queue.jobs[:end]
            self._take(stage, end)
        return tuple(dropped)

    def _next_ahead(self, now_s: float) -> Step:
        """The batch that one instance shall go on with as soon as it is free; drops nothing."""
        if not (self._ahead_s and self._busy) or len(self._running) > self.instances:
            return _NOTHING
        free_s = self._free(now_s)[0]
        if free_s - now_s > self._ahead_s:
            return Step(wake_s=free_s - self._ahead_s)
        stage, queue = self._in_order()[0]
        cost = queue.cost.at(now_s)
        group = self._form(queue, cost, at_s=free_s, now_s=now_s)
        if group.hopeless or starts_s(group, cost, free_s) > free_s:
            return _NOTHING
        self._take(stage, len(group.jobs))
        batch = self._begin(group.jobs, group.items, cost, free_s)
        self._ahead = batch.id
        return Step(batch=batch)

    def _form(self, queue: _Queue, cost: Cost, *, at_s: float, now_s: float) -> Group:
        free_s = self._free(now_s) if cost.crowd_items > cost.batch_items else ()
        most = room(len(queue.jobs), cost, at_s=at_s, free_s=free_s)
        return form(queue.jobs, cost, at_s=at_s, most=most)

    def _unhurried(self, job: Job, queue: _Queue, now_s: float) -> bool:
        """Whether one instance, taking one job after the other, would be in time with them all."""
        last_s = max(self._free(now_s)) + queue.cost.at(now_s).surely_ms(job.items) / 1e3
        first_deadline_s = job.deadline_s
        for each in self._busy.values():
            last_s += each.one_by_one_ms(now_s) / 1e3
            first_deadline_s = min(first_deadline_s, each.first_deadline_s)
        return last_s <= first_deadline_s

    def _admit(self, job: Job, queue: _Queue, now_s: float) -> None:
        waiting = self.queued(job.stage.model, rank=job.rank)
        if waiting >= self.queue_limit:
            raise Overloaded(f"{waiting} requests are waiting for {job.stage.model}")
        if self._busy or len(self._running) >= self.instances:
            self.shares.check(
                job.stage.model,
                needs_ms=queue.cost.at(now_s).in_company_ms(job.items),
                deadline_s=job.deadline_s,
                booked=self._booked(job.stage.model, job.rank, now_s),
                instances=max(1, self.instances),
                now_s=now_s,
            )
        if not self._unhurried(job, queue, now_s):
            self._foresee(job, queue, now_s)

    def _foresee(self, job: Job, queue: _Queue, now_s: float) -> None:
        tried = sorted((*queue.jobs, job), key=_ORDER)
        after_s = self._play(now_s, {job.stage: tried}, until=job)
        done_ms = (after_s[job.id] - now_s) * 1e3
        left_ms = (job.deadline_s - now_s) * 1e3
        own_ms = queue.cost.at(now_s).surely_ms(job.items)
        forecast = (
            f"{max(0.0, done_ms - own_ms):.1f} ms of waiting and {own_ms:.1f} ms of computing"
        )
        if after_s[job.id] > job.deadline_s:
            raise DeadlineRefused(f"forecast {forecast}, {left_ms:.1f} ms are left")
        late = [other for other in self._waiting(job.rank) if after_s[other.id] > other.deadline_s]
        if late:
            before_s = self._play(now_s)
            if any(before_s[other.id] <= other.deadline_s for other in late):
                raise DeadlineRefused(f"forecast {forecast}, but accepted requests would be late")

    def _play(
        self,
        now_s: float,
        changed: Mapping[StageKey, list[Job]] | None = None,
        *,
        until: Job | None = None,
    ) -> dict[int, float]:
        """When each job would surely be done, if all ran as `next` would run them, never lingering.

        What goes before it is reckoned with as it usually is: some take longer, others do not. If
        `until` would be late, those behind it are left out.
        """
        queues = {stage: each.jobs for stage, each in self._busy.items()}
        queues.update(changed or {})
        free = self._free(now_s)
        heads = [(jobs[0].order, stage, 0) for stage, jobs in queues.items()]
        heapq.heapify(heads)
        costs = {stage: self._queues[stage].cost.at(now_s) for stage in queues}
        finish_s: dict[int, float] = {}
        while heads:
            _, stage, at = heapq.heappop(heads)
            jobs, cost = queues[stage], costs[stage]
            while at < len(jobs) and not (heads and heads[0][0] < jobs[at].order):
                first, start_s = at, free[0]
                at = in_time(jobs, cost, at_s=start_s, first=at)
                for job in jobs[first:at]:
                    finish_s[job.id] = ends_s(cost, job.items, start_s)
                if at == first:
                    most = room(len(jobs) - at, cost, at_s=start_s, free_s=free)
                    at, items, _ = together(jobs, cost, at_s=start_s, first=at, most=most)
                    end_s = ends_s(cost, items, start_s)
                    for job in jobs[first:at]:
                        finish_s[job.id] = end_s
                    heapq.heapreplace(free, start_s + cost.predict_ms(items) / 1e3)
                if until is not None and finish_s.get(until.id, 0.0) > until.deadline_s:
                    return finish_s
            if at < len(jobs):
                heapq.heappush(heads, (jobs[at].order, stage, at))
        return finish_s

    def _free(self, now_s: float) -> list[float]:
        """When each instance is expected to be free, the first one first."""
        free = sorted(_free_s(batch, now_s) for batch in self._running.values())
        free = free[max(0, len(free) - self.instances) :]  # who waits there takes the first
        free += [now_s] * (self.instances - len(free))
        free += [now_s + abs(at_s - now_s) for at_s in self._coming_s]
        return sorted(free) or [now_s + self._on_demand_s]

    def _take(self, stage: StageKey, count: int) -> None:
        """The first jobs of a stage are no longer waiting."""
        queue = self._busy[stage]
        queue.take(count)
        if not queue.jobs:
            del self._busy[stage]

    def _begin(self, jobs: tuple[Job, ...], items: int, cost: Cost, now_s: float) -> Batch:
        self._batches += 1
        batch = Batch(
            id=self._batches,
            stage=jobs[0].stage,
            jobs=jobs,
            started_s=now_s,
            predicted_ms=cost.predict_ms(items),
        )
        self._running[batch.id] = batch
        return batch

    def _in_order(self) -> list[tuple[StageKey, _Queue]]:
        waiting = [*self._busy.items()]
        return sorted(waiting, key=_head_order) if len(waiting) > 1 else waiting

    def _booked(self, model: str, rank: int, now_s: float) -> Iterator[tuple[float, float]]:
        """Until when a model has which milliseconds of the instances: what runs, what waits."""
        for batch in self._running.values():
            if batch.stage.model == model:
                end_s = batch.started_s + batch.predicted_ms / 1e3
                left_ms = (end_s - max(now_s, batch.started_s)) * 1e3
                yield end_s, max(left_ms, 0.0)
        for stage, queue in self._busy.items():
            if stage.model == model:
                cost = queue.cost.at(now_s)
                for job in queue.jobs[: queue.not_behind(rank)]:
                    yield job.deadline_s, cost.in_company_ms(job.items)

    def _waiting(self, rank: int) -> Iterator[Job]:
        """Those not behind a rank."""
        for queue in self._busy.values():
            yield from queue.jobs[: queue.not_behind(rank)]


def _head_order(waiting: tuple[StageKey, _Queue]) -> tuple[int, float, int]:
    return waiting[1].jobs[0].order


def _free_s(batch: Batch, now_s: float) -> float:
    """When a batch is expected to end; once it is overdue, in as long as it is overdue."""
    return now_s + abs(batch.started_s + batch.predicted_ms / 1e3 - now_s)

"""The scheduler under a clock that is only a number."""

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hybridge.cloud.cost import Cost
from hybridge.cloud.job import Job, StageKey
from hybridge.cloud.scheduler import Batch, Capacity, Scheduler, Step
from hybridge.shared.deadline import Deadline
from hybridge.shared.errors import DeadlineUnmet, Overloaded

PLAIN = StageKey("plain", "1")
BATCHED = StageKey("batched", "1", "cut")
EVEN = StageKey("even", "1")
COSTS = {
    PLAIN: Cost(fixed_ms=0.0, per_item_ms=10.0),
    EVEN: Cost(fixed_ms=0.0, per_item_ms=10.0, crowd_items=2),
    BATCHED: Cost(fixed_ms=8.0, per_item_ms=1.0, batch_items=4),
}
LIMIT = 5


@dataclass
class Bench:
    """A scheduler, and jobs for it numbered in the order of their making."""

    instances: int = 1
    limit: int = LIMIT
    scheduler: Scheduler = field(init=False)
    made: int = 0

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(instances=self.instances, queue_limit=self.limit)
        for stage, cost in COSTS.items():
            self.scheduler.add_stage(stage, cost)

    def submit(
        self,
        stage: StageKey = PLAIN,
        *,
        budget_ms: float = 1e6,
        now_s: float = 0.0,
        items: int = 1,
        rank: int = 0,
    ) -> Job:
        self.made += 1
        job = Job(
            id=self.made,
            stage=stage,
            items=items,
            arrived_s=now_s,
            deadline_s=now_s + budget_ms / 1e3,
            rank=rank,
        )
        self.scheduler.submit(job, now_s=now_s)
        return job

    def batch(self, now_s: float = 0.0) -> Batch:
        step = self.scheduler.next(now_s=now_s)
        assert step.batch is not None
        return step.batch

    def finish(self, batch: Batch, now_s: float) -> float:
        items = sum(job.items for job in batch.jobs)
        return self.scheduler.finish(batch, now_s=now_s, items=items)


def test_earliest_deadline_goes_first() -> None:
    bench = Bench()
    late, soon = bench.submit(budget_ms=500), bench.submit(budget_ms=100)
    first = bench.batch()
    assert first.jobs == (soon,)
    assert bench.scheduler.next(now_s=0.0).batch is None  # the one instance is taken
    bench.finish(first, now_s=0.01)
    assert bench.batch(0.01).jobs == (late,)


def ahead(ahead_ms: float, *, instances: int = 1) -> Bench:
    bench = Bench(instances=instances)
    bench.scheduler.resize(Capacity(instances=instances, ahead_s=ahead_ms / 1e3))
    return bench


def test_one_batch_more_waits_beside_an_instance_that_will_soon_be_free() -> None:
    bench = ahead(4.0)
    for _ in range(4):
        bench.submit()
    first = bench.batch()
    assert bench.scheduler.next(now_s=0.0) == Step(wake_s=pytest.approx(0.006))
    second = bench.batch(0.007)
    assert second.started_s == pytest.approx(0.010)
    assert bench.scheduler.next(now_s=0.007) == Step()
    assert bench.scheduler.running == 1
    assert bench.scheduler.forecast_ms(now_s=0.007) == pytest.approx(3 + 3 * 10)
    assert bench.finish(first, 0.012) == pytest.approx(12.0)
    assert bench.scheduler.running == 1
    bench.batch(0.0199)
    assert bench.finish(second, 0.020) == pytest.approx(8.0)


def test_two_instances_have_one_more_between_them() -> None:
    bench = ahead(50.0, instances=2)
    for _ in range(5):
        bench.submit()
    batches = [bench.batch() for _ in range(3)]
    assert [batch.started_s for batch in batches] == [0.0, 0.0, pytest.approx(0.010)]
    assert bench.scheduler.next(now_s=0.0).batch is None
    bench.finish(batches[1], 0.009)
    assert bench.batch(0.009).started_s == pytest.approx(0.010)


def test_out_of_a_crowd_two_run_together() -> None:
    bench = Bench(instances=2)
    for _ in range(4):
        bench.submit(EVEN)
    first, second = bench.batch(), bench.batch()
    assert [len(batch.jobs) for batch in (first, second)] == [2, 2]
    assert [batch.predicted_ms for batch in (first, second)] == [20.0, 20.0]


def test_no_instance_idles_for_the_sake_of_company() -> None:
    bench = Bench(instances=2)
    for _ in range(2):
        bench.submit(EVEN)
    assert [len(bench.batch().jobs) for _ in range(2)] == [1, 1]


def test_those_of_about_the_same_budget_go_as_they_came() -> None:
    """gRPC writes 60 s as 60.0 or 60.1; the scheduler takes their turns from the deadline."""
    scheduler = Bench().scheduler
    for number, left_ms in enumerate((60_097.0, 59_996.0, 60_099.0, 31_000.0)):
        deadline = Deadline.after_ms(left_ms, now_s=number / 1e3, grain_ms=100.0)
        job = Job(
            id=number,
            stage=PLAIN,
            items=1,
            arrived_s=number / 1e3,
            deadline_s=deadline.at_s,
            turn_s=deadline.turn_s,
        )
        scheduler.submit(job, now_s=number / 1e3)
    order = []
    for number in range(4):
        batch = scheduler.next(now_s=1.0 + number).batch
        assert batch is not None
        order += [job.id for job in batch.jobs]
        scheduler.finish(batch, now_s=1.01 + number, items=1)
    assert order == [3, 0, 1, 2]


def test_who_is_most_urgent_counts_wherever_its_turn_is() -> None:
    bench = Bench()
    first = Job(id=100, stage=PLAIN, items=1, arrived_s=0.0, deadline_s=0.2, turn_s=0.1)
    second = Job(id=101, stage=PLAIN, items=1, arrived_s=0.0, deadline_s=0.04, turn_s=0.15)
    for job in (first, second):
        bench.scheduler.submit(job, now_s=0.0)
    bench.submit(budget_ms=60.0)  # goes first, and leaves the second its 40 ms
    bench.submit(budget_ms=60.0)
    with pytest.raises(DeadlineUnmet, match="accepted requests would be late"):
        bench.submit(budget_ms=60.0)


def test_nothing_is_dropped_ahead() -> None:
    bench = ahead(50.0)
    bench.submit()
    bench.batch()
    job = bench.submit(budget_ms=24.0)
    assert bench.scheduler.next(now_s=0.0125) == Step()  # overdue, but it may end at any moment
    assert bench.scheduler.cancel(job)


def test_refuses_at_once_what_cannot_be_met() -> None:
    bench = Bench()
    with pytest.raises(DeadlineUnmet, match=r"0\.0 ms of waiting and 10\.0 ms of computing"):
        bench.submit(budget_ms=9)
    bench.submit(budget_ms=11)
    with pytest.raises(DeadlineUnmet, match=r"10\.0 ms of waiting"):
        bench.submit(budget_ms=15)
    bench.submit(budget_ms=21)
    assert bench.scheduler.queued("plain") == 2


def test_refuses_who_would_make_an_accepted_one_late() -> None:
    bench = Bench()
    bench.submit(budget_ms=15)
    with pytest.raises(DeadlineUnmet, match="accepted requests would be late"):
        bench.submit(budget_ms=12)


def test_parallel_instances_count_in_the_forecast() -> None:
    bench = Bench(instances=2)
    for _ in range(2):
        bench.submit(budget_ms=11)
    with pytest.raises(DeadlineUnmet):
        bench.submit(budget_ms=11)
    assert bench.scheduler.forecast_ms(now_s=0.0) == pytest.approx(10.0)


def test_forecast_counts_what_runs_and_distrusts_what_is_overdue() -> None:
    bench = Bench()
    bench.submit()
    bench.batch()
    assert bench.scheduler.forecast_ms(now_s=0.004) == pytest.approx(6.0)
    assert bench.scheduler.forecast_ms(now_s=0.060) == pytest.approx(50.0)


def test_instances_that_are_to_come_count_from_then_on() -> None:
    bench = Bench(instances=0)
    bench.scheduler.resize(Capacity(instances=0, coming_s=(2.0, 1.0)))
    assert bench.scheduler.forecast_ms(now_s=0.0) == 1_000
    assert bench.scheduler.forecast_ms(now_s=2.5) == 500  # overdue: in as long as it is overdue
    bench.submit(budget_ms=1_011)
    bench.submit(budget_ms=2_011)
    assert bench.scheduler.next(now_s=0.0) == Step()
    with pytest.raises(DeadlineUnmet):
        bench.submit(budget_ms=1_015)
    bench.scheduler.resize(Capacity(instances=1, coming_s=(2.0,)))
    assert bench.batch(now_s=1.0).jobs[0].id == 1


def test_without_instances_one_comes_when_asked_for() -> None:
    bench = Bench(instances=0)
    bench.scheduler.resize(Capacity(instances=0, on_demand_s=3.0))
    assert bench.scheduler.forecast_ms(now_s=0.0) == 3_000
    with pytest.raises(DeadlineUnmet):
        bench.submit(budget_ms=3_009)
    bench.submit(budget_ms=3_011)


def test_what_runs_where_there_is_room_no_more_is_left_to_finish() -> None:
    bench = Bench(instances=2)
    for _ in range(3):
        bench.submit()
    batches = [bench.batch(), bench.batch()]
    bench.scheduler.resize(Capacity(instances=1))
    bench.finish(batches[0], now_s=0.01)
    assert bench.scheduler.next(now_s=0.01) == Step()
    bench.finish(batches[1], now_s=0.01)
    assert bench.batch(now_s=0.01).jobs[0].id == 3


def test_queue_is_bounded_per_model() -> None:
    bench = Bench()
    for _ in range(LIMIT):
        bench.submit()
    with pytest.raises(Overloaded, match="5 requests are waiting for plain"):
        bench.submit()
    bench.submit(BATCHED)
    assert bench.scheduler.queued("batched") == 1


def test_expired_and_cancelled_jobs_never_run() -> None:
    bench = Bench()
    expired, cancelled, good = bench.submit(budget_ms=20), bench.submit(), bench.submit()
    assert bench.scheduler.cancel(cancelled)
    assert not bench.scheduler.cancel(cancelled)
    step = bench.scheduler.next(now_s=0.03)
    assert step.dropped == (expired,)
    assert step.batch is not None
    assert step.batch.jobs == (good,)


def test_no_batch_without_gain() -> None:
    bench = Bench()
    first, _ = bench.submit(), bench.submit()
    assert bench.batch().jobs == (first,)


def test_a_full_batch_starts_at_once_others_when_the_clock_of_the_first_runs_out() -> None:
    bench = Bench()
    jobs = [bench.submit(BATCHED, now_s=at / 1e3) for at in range(3)]
    step = bench.scheduler.next(now_s=0.0015)
    assert step.batch is None
    assert step.wake_s == pytest.approx(0.002)  # a quarter of 8 ms after the first
    assert bench.batch(0.002).jobs == tuple(jobs)
    bench = Bench()
    jobs = [bench.submit(BATCHED) for _ in range(5)]
    assert bench.batch().jobs == tuple(jobs[:4])


def test_lingering_never_costs_a_deadline() -> None:
    bench = Bench()
    job = bench.submit(BATCHED, budget_ms=9.5)
    assert bench.batch(0.0).jobs == (job,)


def test_a_batch_grows_only_while_its_most_urgent_job_stays_in_time() -> None:
    bench = Bench()
    urgent = bench.submit(BATCHED, budget_ms=10.5)
    joined, left = bench.submit(BATCHED), bench.submit(BATCHED)
    assert bench.batch().jobs == (urgent, joined)
    assert left.id not in {urgent.id, joined.id}


def test_one_stage_that_lingers_does_not_hold_up_another() -> None:
    bench = Bench()
    bench.submit(BATCHED, budget_ms=500)
    plain = bench.submit(PLAIN, budget_ms=600)
    assert bench.batch().jobs == (plain,)


def test_many_items_of_one_request_stay_together() -> None:
    bench = Bench()
    job = bench.submit(items=6, budget_ms=61)
    assert bench.batch().jobs == (job,)


def test_nothing_is_begun_that_would_hardly_be_in_time() -> None:
    bench, now_s = Bench(), 0.0
    for run in range(40):  # every fourth takes half as long again
        bench.submit(now_s=now_s)
        batch = bench.batch(now_s)
        now_s += 0.015 if run % 4 == 0 else 0.010
        bench.finish(batch, now_s)
    cost = bench.scheduler.cost(PLAIN).at(now_s)
    between_ms = (cost.predict_ms(1) + cost.surely_ms(1)) / 2
    with pytest.raises(DeadlineUnmet):
        bench.submit(budget_ms=between_ms, now_s=now_s)
    waits = bench.submit(budget_ms=cost.surely_ms(1) + 1, now_s=now_s)
    late_s = waits.deadline_s - between_ms / 1e3
    assert bench.scheduler.next(now_s=late_s).dropped == (waits,)


class SchedulerMachine(RuleBasedStateMachine):
    """Whatever happens, in whatever order: each accepted job ends in exactly one way."""

    @initialize(instances=st.integers(1, 3), ahead_ms=st.sampled_from([0.0, 5.0, 50.0]))
    def start(self, instances: int, ahead_ms: float) -> None:
        self.now_s = 0.0
        self.bench = ahead(ahead_ms, instances=instances)
        self.ahead_s = ahead_ms / 1e3
        self.waiting: dict[int, Job] = {}
        self.running: list[Batch] = []

    @rule(
        stage=st.sampled_from([PLAIN, BATCHED, EVEN]),
        budget_ms=st.floats(0.1, 120.0),
        items=st.integers(1, 5),
        rank=st.integers(-1, 1),
    )
    def submit(self, stage: StageKey, budget_ms: float, items: int, rank: int) -> None:
        try:
            job = self.bench.submit(
                stage, budget_ms=budget_ms, now_s=self.now_s, items=items, rank=rank
            )
        except Overloaded:
            assert self.count(stage, rank) >= LIMIT
        except DeadlineUnmet:
            pass
        else:
            assert self.count(stage, rank) < LIMIT
            self.waiting[job.id] = job

    @rule(
        stage=st.sampled_from([PLAIN, BATCHED, EVEN]),
        budget_ms=st.floats(0.1, 500.0),
        items=st.integers(1, 5),
    )
    def who_has_no_hurry_is_admitted_by_playing_too(
        self, stage: StageKey, budget_ms: float, items: int
    ) -> None:
        scheduler, deadline_s = self.bench.scheduler, self.now_s + budget_ms / 1e3
        job = Job(id=10**6, stage=stage, items=items, arrived_s=self.now_s, deadline_s=deadline_s)
        queue = scheduler._queues[stage]
        if scheduler._unhurried(job, queue, self.now_s):
            scheduler._foresee(job, queue, self.now_s)

    @rule(step_ms=st.floats(0.0, 40.0))
    def pass_time(self, step_ms: float) -> None:
        self.now_s += step_ms / 1e3

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = self.waiting.pop(data.draw(st.sampled_from(sorted(self.waiting))))
        assert self.bench.scheduler.cancel(job)

    @rule()
    def next(self) -> None:
        step = self.bench.scheduler.next(now_s=self.now_s)
        for job in step.dropped:
            assert self.waiting.pop(job.id) == job
            cost = self.bench.scheduler.cost(job.stage).at(self.now_s)
            assert self.now_s + cost.surely_ms(job.items) / 1e3 > job.deadline_s
        if step.batch is None:
            assert step.wake_s is None or step.wake_s > self.now_s
            assert step.wake_s is not None or not self.waiting or self.full
            return
        if self.full:
            assert len(self.running) == self.bench.instances
            assert self.now_s <= step.batch.started_s <= self.now_s + self.ahead_s
            assert self.ahead_s > 0
            assert not step.dropped
        else:
            assert step.batch.started_s == self.now_s
        self.check_batch(step.batch)
        self.running.append(step.batch)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self.running))
        self.running.remove(batch)
        self.bench.finish(batch, self.now_s)
        assert self.bench.scheduler.running <= self.bench.instances

    @invariant()
    def forecast_is_a_time(self) -> None:
        if hasattr(self, "bench"):
            assert self.bench.scheduler.forecast_ms(now_s=self.now_s) >= 0

    @property
    def full(self) -> bool:
        return len(self.running) >= self.bench.instances

    def count(self, stage: StageKey, rank: int) -> int:
        return sum(job.stage == stage and job.rank <= rank for job in self.waiting.values())

    def check_batch(self, batch: Batch) -> None:
        for job in batch.jobs:
            assert self.waiting.pop(job.id) == job
            assert job.stage == batch.stage
            assert job.deadline_s > self.now_s
            assert batch.started_s + batch.predicted_ms / 1e3 <= job.deadline_s
        left_behind = [job.order for job in self.waiting.values() if job.stage == batch.stage]
        assert [job.order for job in batch.jobs] == sorted(job.order for job in batch.jobs)
        assert all(batch.jobs[-1].order < order for order in left_behind)
        assert len(batch.jobs) == 1 or sum(job.items for job in batch.jobs) <= self.most_items(
            COSTS[batch.stage]
        )

    @staticmethod
    def most_items(cost: Cost) -> int:
        return max(cost.batch_items, cost.crowd_items)


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.parametrize("stage", [PLAIN, EVEN])
def test_a_queue_that_is_played_forward_comes_true(stage: StageKey) -> None:
    """With exact costs every accepted job is in time, however many were refused."""
    bench = Bench(limit=1000)
    accepted = 0
    for at in range(200):
        try:
            bench.submit(stage, budget_ms=30 + 7 * (at % 11), now_s=0.0)
            accepted += 1
        except DeadlineUnmet:
            continue
    now_s, done = 0.0, 0
    while (step := bench.scheduler.next(now_s=now_s)).batch is not None:
        assert not step.dropped
        now_s += step.batch.predicted_ms / 1e3
        bench.finish(step.batch, now_s)
        done += len(step.batch.jobs)
    assert done == accepted == 10

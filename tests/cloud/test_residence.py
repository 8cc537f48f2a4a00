"""What is in memory, under a clock that is only a number."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hybridge.cloud.job import StageKey
from hybridge.cloud.residence import Eviction, Limits, ModelKey, Reason, Residence, Step

FOREVER_S = 1e9


def whole(name: str) -> StageKey:
    return StageKey(name, "1")


@dataclass
class Bench:
    """A residence of models of 40 bytes each, and what it asked for last."""

    limits: Limits
    names: tuple[str, ...] = ("a", "b", "c")
    load_s: float = 2.0
    residence: Residence = field(init=False)

    def __post_init__(self) -> None:
        self.residence = Residence(self.limits)
        for name in self.names:
            self.residence.add(whole(name), shared_bytes=40, now_s=0.0)

    def step(self, now_s: float) -> Step:
        return self.residence.next(now_s=now_s)

    def load(self, name: str, now_s: float, *, keep: bool = False) -> int:
        """Calls a model at an instant and lets it be loaded; the call ends unless it is kept."""
        call = self.residence.call(whole(name), deadline_s=FOREVER_S, now_s=now_s)
        step = self.step(now_s)
        self.leave(step.evict)
        assert (step.load or self.step(now_s).load) == whole(name)
        self.loaded(name, now_s + self.load_s)
        if not keep:
            self.residence.end(call, now_s=now_s + self.load_s)
        return call

    def loaded(self, name: str, now_s: float, *, grown_bytes: int = 40) -> None:
        self.residence.loaded(
            whole(name), grown_bytes=grown_bytes, took_ms=self.load_s * 1e3, now_s=now_s
        )

    def leave(self, evictions: tuple[Eviction, ...]) -> list[str]:
        for eviction in evictions:
            self.residence.evicted(eviction.model)
        return [eviction.model[0] for eviction in evictions]

    def resident(self) -> set[str]:
        return {name for (name, _), _ in self.residence.resident()}

    def forecast_ms(self, name: str, now_s: float, deadline_s: float = 1e6) -> float | None:
        return self.residence.forecast_ms(whole(name), deadline_s=deadline_s, now_s=now_s)


def test_a_call_loads_its_model_once() -> None:
    bench = Bench(Limits())
    for at in range(3):
        bench.residence.call(whole("a"), deadline_s=FOREVER_S, now_s=float(at))
    assert bench.step(3.0) == Step(load=whole("a"))
    assert bench.step(3.0) == Step()
    bench.loaded("a", 5.0)
    assert bench.residence.ready(whole("a"))
    assert bench.step(5.0) == Step()


def test_the_least_recently_used_makes_room() -> None:
    bench = Bench(Limits(budget_bytes=100))
    bench.load("a", 0.0)
    bench.load("b", 10.0)
    used = bench.residence.call(whole("a"), deadline_s=FOREVER_S, now_s=20.0)
    bench.residence.end(used, now_s=20.0)
    bench.residence.call(whole("c"), deadline_s=FOREVER_S, now_s=30.0)
    step = bench.step(30.0)
    assert step.load is None
    assert [(each.model[0], each.reason) for each in step.evict] == [("b", Reason.MEMORY)]
    assert bench.step(30.0) == Step()  # what leaves takes its room until it has left
    bench.leave(step.evict)
    assert bench.step(31.0).load == whole("c")


def test_a_model_in_use_is_never_evicted() -> None:
    bench = Bench(Limits(budget_bytes=60, idle_s=1.0))
    using = bench.load("a", 0.0, keep=True)
    bench.residence.call(whole("b"), deadline_s=FOREVER_S, now_s=10.0)
    assert bench.step(10.0) == Step()
    bench.residence.end(using, now_s=50.0)
    assert [each.model[0] for each in bench.step(50.0).evict] == ["a"]


def test_an_idle_model_is_unloaded_when_its_time_is_over() -> None:
    bench = Bench(Limits(idle_s=30.0))
    bench.load("a", 0.0)
    bench.load("b", 10.0)
    assert bench.step(20.0) == Step(wake_s=32.0)
    assert bench.step(31.9) == Step(wake_s=32.0)
    step = bench.step(32.0)
    assert step.evict == (Eviction(model=("a", "1"), stages=(whole("a"),), reason=Reason.IDLE),)
    assert step.wake_s == 42.0
    assert not bench.residence.ready(whole("a"))
    bench.leave(step.evict)
    assert bench.resident() == {"b"}


def test_a_call_while_its_model_leaves_waits_and_loads_it_again() -> None:
    bench = Bench(Limits(idle_s=1.0))
    bench.load("a", 0.0)
    step = bench.step(10.0)
    bench.residence.call(whole("a"), deadline_s=FOREVER_S, now_s=10.0)
    assert not bench.residence.ready(whole("a"))
    assert bench.step(10.0) == Step()
    bench.leave(step.evict)
    assert bench.step(11.0).load == whole("a")


def test_the_earliest_deadline_is_loaded_first() -> None:
    bench = Bench(Limits())
    for name, deadline_s in (("a", 30.0), ("b", 20.0), ("c", 25.0)):
        bench.residence.call(whole(name), deadline_s=deadline_s, now_s=0.0)
    order = []
    for at in range(3):
        load = bench.step(float(at)).load
        assert load is not None
        order.append(load.model)
        bench.loaded(load.model, float(at))
    assert order == ["b", "c", "a"]


def test_the_forecast_knows_what_is_loaded_before() -> None:
    bench = Bench(Limits(idle_s=5.0))
    assert bench.forecast_ms("a", 0.0) is None
    for name in ("a", "b", "c"):
        bench.load(name, 0.0)
    bench.leave(bench.step(100.0).evict)
    assert bench.forecast_ms("a", 100.0) == 2000.0
    for name, deadline_s in (("b", 120.0), ("c", 110.0)):
        bench.residence.call(whole(name), deadline_s=deadline_s, now_s=100.0)
    assert bench.step(100.0).load == whole("c")
    assert bench.forecast_ms("c", 100.5) == 1500.0
    assert bench.forecast_ms("b", 100.5) == 1500.0 + 2000.0
    assert bench.forecast_ms("a", 100.5, deadline_s=115.0) == 1500.0 + 2000.0
    assert bench.forecast_ms("a", 100.5, deadline_s=130.0) == 1500.0 + 2000.0 + 2000.0
    assert bench.forecast_ms("c", 103.0) == 1000.0  # a second overdue: a second more
    bench.loaded("c", 103.0)
    assert bench.forecast_ms("c", 103.0) == 0.0


def test_a_wish_displaces_only_what_has_been_idle_for_as_long_as_it_takes() -> None:
    bench = Bench(Limits(budget_bytes=60))
    bench.load("b", 0.0)
    bench.load("a", 10.0)
    bench.residence.wish(whole("b"))
    assert bench.step(13.0) == Step()  # a was used a second ago, b takes two
    assert bench.step(20.0) == Step()  # and is forgotten
    bench.residence.wish(whole("b"))
    step = bench.step(20.0)
    assert bench.leave(step.evict) == ["a"]
    assert bench.step(20.0).load == whole("b")


def test_what_failed_is_tried_again_later_and_ever_more_rarely() -> None:
    bench = Bench(Limits())
    now_s, pauses = 0.0, []
    for _ in range(9):
        call = bench.residence.call(whole("a"), deadline_s=FOREVER_S, now_s=now_s)
        assert bench.step(now_s).load == whole("a")
        bench.residence.failed(whole("a"), now_s=now_s)
        bench.residence.end(call, now_s=now_s)
        pause_s = 0.0
        while bench.residence.barred(whole("a"), now_s=now_s + pause_s):
            pause_s += 0.5
        pauses.append(pause_s)
        now_s += pause_s
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    bench.load("a", now_s)
    bench.residence.call(whole("b"), deadline_s=FOREVER_S, now_s=0.0)
    bench.step(0.0)
    bench.residence.failed(whole("b"), now_s=0.0)
    bench.residence.call(whole("c"), deadline_s=FOREVER_S, now_s=0.5)
    assert bench.step(0.5).load == whole("c")


def test_what_proves_larger_than_said_displaces_others() -> None:
    bench = Bench(Limits(budget_bytes=100))
    bench.load("a", 0.0)
    bench.residence.call(whole("b"), deadline_s=FOREVER_S, now_s=10.0)
    assert bench.step(10.0).load == whole("b")
    bench.loaded("b", 12.0, grown_bytes=90)
    assert bench.leave(bench.step(12.0).evict) == ["a"]
    assert list(bench.residence.resident()) == [(("b", "1"), 90)]
    bench.residence.call(whole("a"), deadline_s=FOREVER_S, now_s=13.0)
    assert bench.step(13.0) == Step()  # 90 and 40 are too much, and b is in use


def test_one_that_is_larger_than_all_there_is_has_it_to_itself() -> None:
    bench = Bench(Limits(budget_bytes=30))
    bench.load("a", 0.0)
    assert bench.step(5.0) == Step()
    bench.load("b", 10.0)
    assert bench.resident() == {"b"}


def test_graphs_of_a_model_share_its_weights() -> None:
    residence = Residence(Limits(budget_bytes=100))
    tail, other = StageKey("a", "1", "cut"), whole("b")
    for stage, own_bytes in ((whole("a"), 10), (tail, 15), (other, 5)):
        residence.add(stage, shared_bytes=40, own_bytes=own_bytes, now_s=0.0)
    for at, stage in enumerate((whole("a"), tail)):
        residence.call(stage, deadline_s=FOREVER_S, now_s=0.0)
        assert residence.next(now_s=float(at)).load == stage
        residence.loaded(stage, grown_bytes=0, took_ms=1.0, now_s=float(at))
    assert dict(residence.resident()) == {("a", "1"): 65}


def test_graphs_of_a_model_that_do_not_fit_together_take_turns() -> None:
    residence = Residence(Limits(budget_bytes=100))
    tail = StageKey("a", "1", "cut")
    for stage in (whole("a"), tail):
        residence.add(stage, shared_bytes=40, own_bytes=50, now_s=0.0)
    first = residence.call(whole("a"), deadline_s=FOREVER_S, now_s=0.0)
    assert residence.next(now_s=0.0).load == whole("a")
    residence.loaded(whole("a"), grown_bytes=90, took_ms=1.0, now_s=1.0)
    residence.call(tail, deadline_s=FOREVER_S, now_s=2.0)
    assert residence.next(now_s=2.0) == Step()
    residence.end(first, now_s=3.0)
    (eviction,) = residence.next(now_s=3.0).evict
    assert eviction.stages == (whole("a"),)
    residence.evicted(eviction.model)
    assert residence.next(now_s=4.0).load == tail


def test_what_was_given_up_is_not_loaded() -> None:
    bench = Bench(Limits())
    call = bench.residence.call(whole("a"), deadline_s=FOREVER_S, now_s=0.0)
    bench.residence.give_up(whole("a"))
    assert bench.step(0.0) == Step()
    bench.residence.remove(whole("a"))
    bench.residence.end(call, now_s=1.0)
    with pytest.raises(KeyError):
        bench.residence.ready(whole("a"))


SIZES = {"a": 10, "b": 25, "c": 40, "d": 60}
BUDGET, IDLE_S = 100, 20.0


class Traffic(RuleBasedStateMachine):
    """Calls of any kind; what the residence asks for is done after a while, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.residence = Residence(Limits(budget_bytes=BUDGET, idle_s=IDLE_S))
        self.calls: dict[int, StageKey] = {}
        self.used_s: dict[ModelKey, float] = {}
        self.loading: StageKey | None = None
        self.leaving: dict[ModelKey, Eviction] = {}
        self.there: set[StageKey] = set()
        for name, size in SIZES.items():
            self.residence.add(whole(name), shared_bytes=size, now_s=0.0)

    def _take(self) -> None:
        step = self.residence.next(now_s=self.now_s)
        in_use = {(key.model, key.version) for key in self.calls.values()}
        for eviction in step.evict:
            assert eviction.model not in in_use
            assert eviction.model not in self.leaving
            stays = {k for k in self.there if (k.model, k.version) not in self.leaving}
            assert set(eviction.stages) <= stays
            for other in stays:
                model = (other.model, other.version)
                if model not in in_use and model not in {each.model for each in step.evict}:
                    assert self.used_s[eviction.model] <= self.used_s[model]
            if eviction.reason is Reason.IDLE:
                assert self.used_s[eviction.model] + IDLE_S <= self.now_s
            self.leaving[eviction.model] = eviction
        if step.load is not None:
            assert self.loading is None
            assert step.load not in self.there
            self.loading = step.load
        if step.wake_s is not None:
            assert step.wake_s > self.now_s

    @rule(name=st.sampled_from(sorted(SIZES)), budget_s=st.floats(0.1, 100.0))
    def call(self, name: str, budget_s: float) -> None:
        key = whole(name)
        at = self.residence.call(key, deadline_s=self.now_s + budget_s, now_s=self.now_s)
        self.calls[at] = key
        self.used_s[name, "1"] = self.now_s
        self._take()

    @rule(name=st.sampled_from(sorted(SIZES)))
    def wish(self, name: str) -> None:
        self.residence.wish(whole(name))
        self._take()

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from(sorted(self.calls)))
        key = self.calls.pop(at)
        self.residence.end(at, now_s=self.now_s)
        self.used_s[key.model, key.version] = self.now_s
        self._take()

    @precondition(lambda self: self.loading)
    @rule(fails=st.booleans())
    def finish(self, fails: bool) -> None:
        key, self.loading = self.loading, None
        assert key is not None
        if fails:
            self.residence.failed(key, now_s=self.now_s)
            assert self.residence.barred(key, now_s=self.now_s)
        else:
            self.there.add(key)
            self.used_s[key.model, key.version] = self.now_s
            self.residence.loaded(key, grown_bytes=0, took_ms=500.0, now_s=self.now_s)
            assert self.residence.ready(key)
        self._take()

    @precondition(lambda self: self.leaving)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(sorted(self.leaving)))
        self.there -= set(self.leaving.pop(model).stages)
        self.residence.evicted(model)
        self._take()

    @rule(seconds=st.floats(0.0, 8.0))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self._take()

    @invariant()
    def within_the_budget(self) -> None:
        held = {*self.there, *([self.loading] if self.loading else [])}
        taken = sum(SIZES[key.model] for key in held)
        assert self.residence.bytes == taken <= BUDGET

    @invariant()
    def forecasts_are_times(self) -> None:
        for name in SIZES:
            wait_ms = self.residence.forecast_ms(
                whole(name), deadline_s=self.now_s + 1.0, now_s=self.now_s
            )
            assert wait_ms is None or wait_ms >= 0
            if self.residence.ready(whole(name)):
                assert wait_ms == 0

    def teardown(self) -> None:
        """Whoever waits gets its model in the end, if the others let go of theirs."""
        waiting = {key for key in self.calls.values() if not self.residence.ready(key)}
        for at in list(self.calls):
            if self.calls[at] not in waiting:
                self.residence.end(at, now_s=self.now_s)
                del self.calls[at]
        self.now_s += 100.0  # past every pause after a failure
        served: set[StageKey] = set()
        for _ in range(100):
            for model in list(self.leaving):
                self.there -= set(self.leaving.pop(model).stages)
                self.residence.evicted(model)
            if self.loading is not None:
                self.finish(fails=False)
            for at, key in list(self.calls.items()):
                if self.residence.ready(key):
                    served.add(key)
                    self.residence.end(at, now_s=self.now_s)
                    del self.calls[at]
            self._take()
        assert served == waiting
        assert not self.calls


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)

"""Which models are in memory: loaded on a call, unloaded when idle or when memory is short.

Pure: calls, outcomes and a clock reading go in, loads and evictions come out; nothing is measured
or moved here. `cloud/loader.py` drives it.

A model's graphs share their weights, so a model is unloaded as a whole: the least recently used
first, and never one that is in use. Graphs are loaded one at a time, earliest deadline first, as
the scheduler runs them. A call that cannot wait for its model leaves a wish: the model is loaded
for the next call, but displaces only what has been idle for longer than the loading takes
(otherwise two models that are called in turn would displace each other for ever, and answer none).
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from .job import StageKey

ModelKey = tuple[str, str]

_RETRY_S, _RETRY_AT_MOST_S = 1.0, 60.0
_LOADS_KEPT = 3


class Reason(StrEnum):
    """Why a model was unloaded."""

    IDLE = "idle"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What all models together may take, and how long one stays unused; None: without end."""

    budget_bytes: int | None = None
    idle_s: float | None = None

    @property
    def any(self) -> bool:
        return self.budget_bytes is not None or self.idle_s is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction:
    """A model to be unloaded, and which of its graphs are loaded."""

    model: ModelKey
    stages: tuple[StageKey, ...]
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is to be done now.

    Ask again when any of it is done, at a call and its end, and at `wake_s`.
    """

    load: StageKey | None = None
    evict: tuple[Eviction, ...] = ()
    wake_s: float | None = None


class _State(StrEnum):
    COLD = "cold"
    LOADING = "loading"
    READY = "ready"


@dataclass(slots=True)
class _Part:
    """One graph: what it takes beside the weights, and how loading it went."""

    own_bytes: int
    state: _State = _State.COLD
    started_s: float = 0.0
    load_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LOADS_KEPT))
    failures: int = 0
    retry_s: float = 0.0
    wished: bool = False

    @property
    def expected_ms(self) -> float | None:
        """The slowest of the last loads: what lies in the page cache now may not the next time."""
        return max(self.load_ms, default=None)


@dataclass(slots=True)
class _Model:
    shared_bytes: int
    parts: dict[StageKey, _Part] = field(default_factory=dict)
    last_used_s: float = 0.0
    leaving: bool = False

    @property
    def held(self) -> list[StageKey]:
        return [key for key, part in self.parts.items() if part.state is not _State.COLD]

    @property
    def bytes(self) -> int:
        held = [part.own_bytes for part in self.parts.values() if part.state is not _State.COLD]
        return self.shared_bytes + sum(held) if held else 0

    def bytes_with(self, part: _Part) -> int:
        """What one more graph would add."""
        return part.own_bytes + (0 if self.held else self.shared_bytes)

    @property
    def is_loading(self) -> bool:
        return any(part.state is _State.LOADING for part in self.parts.values())


class _Call(msgspec.Struct, frozen=True):
    stage: StageKey
    deadline_s: float


class Residence:
    """Every graph that can be served, those in memory, and the calls that are under way."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._models: dict[ModelKey, _Model] = {}
        self._calls: dict[int, _Call] = {}
        self._loading: StageKey | None = None
        self._count = 0

    def add(
        self,
        stage: StageKey,
        *,
        shared_bytes: int = 0,
        own_bytes: int = 0,
        now_s: float,
        loaded: bool = False,
    ) -> None:
        """Makes a graph known: its model's weights, and what it takes beside them."""
        model = self._models.setdefault(_model(stage), _Model(shared_bytes, last_used_s=now_s))
        state = _State.READY if loaded else _State.COLD
        model.parts[stage] = _Part(own_bytes, state=state)

    def give_up(self, stage: StageKey) -> None:
        """Serves no call with a graph any more, neither those there are nor wishes."""
        self._calls = {at: call for at, call in self._calls.items() if call.stage != stage}
        self._part(stage).wished = False

    def remove(self, stage: StageKey) -> None:
        """Forgets a graph that was given up and is not being loaded."""
        model = self._models[_model(stage)]
        assert model.parts[stage].state is not _State.LOADING, f"{stage} is being loaded"
        del model.parts[stage]
        if not model.parts:
            del self._models[_model(stage)]

    def ready(self, stage: StageKey) -> bool:
        """Whether a graph is loaded, and stays so for whoever calls now."""
        model = self._models[_model(stage)]
        return model.parts[stage].state is _State.READY and not model.leaving

    def barred(self, stage: StageKey, *, now_s: float) -> bool:
        """Whether loading failed so lately that it is not tried again yet."""
        part = self._part(stage)
        return part.failures > 0 and now_s < part.retry_s

    def call(self, stage: StageKey, *, deadline_s: float, now_s: float) -> int:
        """A call that needs a graph until `end`, and whose time ends at a deadline."""
        self._models[_model(stage)].last_used_s = now_s
        self._count += 1
        self._calls[self._count] = _Call(stage, deadline_s)
        return self._count

    def end(self, call: int, *, now_s: float) -> None:
        """A call is over, answered or not."""
        over = self._calls.pop(call, None)
        if over is not None:
            self._models[_model(over.stage)].last_used_s = now_s

    def wish(self, stage: StageKey) -> None:
        """A call was refused because its graph is not there; the next one may find it."""
        self._part(stage).wished = True

    def forecast_ms(self, stage: StageKey, *, deadline_s: float, now_s: float) -> float | None:
        """How long a call would at least wait for its graph; None if it is not known."""
        if self.ready(stage):
            return 0.0
        before = self._before(stage, deadline_s, now_s)
        left = [self._left_ms(key, now_s) for key in (*before, stage)]
        known = [each for each in left if each is not None]
        return sum(known) if len(known) == len(left) else None

    def next(self, *, now_s: float) -> Step:
        """What to load and what to evict now; each is begun at once by whoever asks."""
        used = {_model(call.stage) for call in self._calls.values()}
        evict = self._idle(used, now_s)
        evict += self._over(used)
        load = None
        if self._loading is None:
            load, more = self._choose(used, now_s)
            evict += more
        return Step(load=load, evict=tuple(evict), wake_s=self._wake_s(used))

    def loaded(self, stage: StageKey, *, grown_bytes: int, took_ms: float, now_s: float) -> None:
        """A graph is there; the process has grown by so much."""
        model = self._models[_model(stage)]
        part = model.parts[stage]
        others = any(key != stage for key in model.held)
        part.own_bytes = max(part.own_bytes, grown_bytes - (0 if others else model.shared_bytes))
        part.state, part.failures, part.wished = _State.READY, 0, False
        part.load_ms.append(took_ms)
        model.last_used_s = now_s
        self._loading = None

    def failed(self, stage: StageKey, *, now_s: float) -> None:
        """A graph could not be loaded; it is not tried again at once, and ever more rarely."""
        part = self._part(stage)
        pause_s = min(_RETRY_S * 2**part.failures, _RETRY_AT_MOST_S)
        part.state, part.wished = _State.COLD, False
        part.failures += 1
        part.retry_s = now_s + pause_s
        self._loading = None

    def evicted(self, model: ModelKey) -> None:
        """What `next` asked to be unloaded is."""
        if (there := self._models.get(model)) is None:
            return
        there.leaving = False
        for part in there.parts.values():
            part.state = _State.COLD

    @property
    def bytes(self) -> int:
        """What is in memory, or about to be."""
        return sum(model.bytes for model in self._models.values())

    def resident(self) -> Iterator[tuple[ModelKey, int]]:
        """The models in memory, and what each takes."""
        for key, model in self._models.items():
            if any(part.state is _State.READY for part in model.parts.values()):
                yield key, model.bytes

    def _part(self, stage: StageKey) -> _Part:
        return self._models[_model(stage)].parts[stage]

    def _idle(self, used: set[ModelKey], now_s: float) -> list[Eviction]:
        """Evicts what has been idle for too long."""
        idle_s = self.limits.idle_s
        if idle_s is None:
            return []
        return [
            self._leave(key, Reason.IDLE)
            for key in self._by_age(used)
            if self._models[key].last_used_s + idle_s <= now_s
        ]

    def _wake_s(self, used: set[ModelKey]) -> float | None:
        idle_s = self.limits.idle_s
        if idle_s is None:
            return None
        return min(
            (self._models[key].last_used_s + idle_s for key in self._by_age(used)), default=None
        )

    def _by_age(self, used: set[ModelKey]) -> list[ModelKey]:
        """The models that may be evicted, the least recently used first."""
        free = [
            key
            for key, model in self._models.items()
            if key not in used and model.held and not model.leaving and not model.is_loading
        ]
        return sorted(free, key=lambda key: self._models[key].last_used_s)

    def _choose(self, used: set[ModelKey], now_s: float) -> tuple[StageKey | None, list[Eviction]]:
        """The graph to load now, or what has to go before one can be."""
        for stage in self._called(now_s):
            load, evictions = self._room(stage, self._by_age(used), now_s)
            if load or evictions or self._is_leaving:
                return load, evictions
        for stage, part in self._wished():
            load_s = (part.expected_ms or 0.0) / 1e3
            idle = [k for k in self._by_age(used) if self._models[k].last_used_s + load_s <= now_s]
            load, evictions = self._room(stage, idle, now_s)
            if load or evictions or self._is_leaving:
                return load, evictions
            part.wished = False
        return None, []

    def _room(
        self, stage: StageKey, victims: list[ModelKey], now_s: float
    ) -> tuple[StageKey | None, list[Eviction]]:
        """Begins to load a graph if there is room, or makes room; neither: it must wait."""
        key, budget = _model(stage), self.limits.budget_bytes
        model = self._models[key]
        if model.leaving:
            return None, []
        if budget is None:
            return self._begin(stage, now_s), []
        whole = model.bytes + model.bytes_with(model.parts[stage])
        if whole > budget and model.held:  # its graphs cannot be there together
            return None, [] if self._is_running(key) else [self._leave(key, Reason.MEMORY)]
        whole = min(whole, budget)  # one that takes more than all there is has it to itself
        others = sum(m.bytes for k, m in self._models.items() if k != key)
        leaving = sum(m.bytes for m in self._models.values() if m.leaving)
        if others + whole <= budget:
            return self._begin(stage, now_s), []
        victims = [each for each in victims if each != key]
        return None, self._free(others - leaving + whole - budget, victims)

    def _free(self, missing: int, victims: list[ModelKey]) -> list[Eviction]:
        """Evicts the first of the victims until enough is free; none if all are not enough."""
        taken: list[ModelKey] = []
        for key in victims:
            if missing <= 0:
                break
            taken.append(key)
            missing -= self._models[key].bytes
        return [] if missing > 0 else [self._leave(key, Reason.MEMORY) for key in taken]

    def _over(self, used: set[ModelKey]) -> list[Eviction]:
        """Evicts what proved too much once it was measured; what is there alone may stay."""
        budget = self.limits.budget_bytes
        staying = [model for model in self._models.values() if model.held and not model.leaving]
        excess = 0 if budget is None else sum(model.bytes for model in staying) - budget
        evictions: list[Eviction] = []
        for key in self._by_age(used)[: len(staying) - 1]:
            if excess <= 0:
                break
            excess -= self._models[key].bytes
            evictions.append(self._leave(key, Reason.MEMORY))
        return evictions

    def _called(self, now_s: float) -> list[StageKey]:
        """The graphs that calls wait for, earliest deadline first."""
        calls = sorted((call.deadline_s, at, call.stage) for at, call in self._calls.items())
        return [
            stage
            for stage in dict.fromkeys(stage for _, _, stage in calls)
            if self._part(stage).state is _State.COLD and not self.barred(stage, now_s=now_s)
        ]

    def _wished(self) -> list[tuple[StageKey, _Part]]:
        return [
            (stage, part)
            for model in self._models.values()
            for stage, part in model.parts.items()
            if part.wished and part.state is _State.COLD
        ]

    def _before(self, stage: StageKey, deadline_s: float, now_s: float) -> list[StageKey]:
        """What is loaded before a graph that a call with this deadline wants."""
        if self._loading == stage:
            return []
        sooner = {call.stage for call in self._calls.values() if call.deadline_s <= deadline_s}
        waiting = [each for each in self._called(now_s) if each in sooner and each != stage]
        return [*waiting] if self._loading is None else [self._loading, *waiting]

    def _left_ms(self, stage: StageKey, now_s: float) -> float | None:
        """What loading a graph still takes; once overdue, as long as it is overdue."""
        part = self._part(stage)
        if part.expected_ms is None or part.state is not _State.LOADING:
            return part.expected_ms
        return abs(part.expected_ms - (now_s - part.started_s) * 1e3)

    def _is_running(self, key: ModelKey) -> bool:
        """Whether a call uses what is loaded of a model, or more of it is being loaded."""
        model = self._models[key]
        busy = {call.stage for call in self._calls.values()}
        return any(
            part.state is _State.LOADING or (part.state is _State.READY and stage in busy)
            for stage, part in model.parts.items()
        )

    @property
    def _is_leaving(self) -> bool:
        return any(model.leaving for model in self._models.values())

    def _begin(self, stage: StageKey, now_s: float) -> StageKey:
        part = self._part(stage)
        part.state, part.started_s, part.wished = _State.LOADING, now_s, False
        self._loading = stage
        return stage

    def _leave(self, key: ModelKey, reason: Reason) -> Eviction:
        model = self._models[key]
        model.leaving = True
        return Eviction(model=key, stages=tuple(model.held), reason=reason)


def _model(stage: StageKey) -> ModelKey:
    return (stage.model, stage.version)

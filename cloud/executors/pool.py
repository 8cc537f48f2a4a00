"""Replicas as one executor: watched, started again when they die, as many as requests need.

A seat is a place for a replica. Whoever sits there dies, and the seat is taken anew: at once, then
at doubling pauses while that keeps failing. Batches go to the first seat that has a free slot, so
that where there are more seats than work the last ones idle, and are let go.
"""

import asyncio
import contextlib
import itertools
import logging
import pickle
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from ...shared.deadline import Clock, monotonic
from ...shared.errors import ConfigError, HybridgeError, InstanceLost, ModelFault
from ...shared.tensor import DTYPES
from ..cost import Cost
from ..scheduler import Capacity
from ..stage import Stage
from ..work import Answer, Execution, Work
from .executor import Demand, Executor, Staff
from .far_end import Echo, LetGo, Open, Order, Told, send
from .parcel import Parcel, Place, pack, unpack
from .replica import Replica, ReplicaLost
from .scaling import Bounds, missing, superfluous

log = logging.getLogger(__name__)

Make = Callable[[str], Replica]

_GIVE_UP_AFTER = 5
"""Failed starts of a seat in a row that end a cloud which is starting; later it goes on trying."""
_STEADY_S = 10.0
"""Whoever lived so long did not die of its start."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 30.0
_LOOK_EVERY_S = 0.25
_ECHOES = 5
_DEATHS_TO_BLAME = 2


@dataclass(eq=False)
class _Seat:
    name: str
    expected_s: float
    replica: Replica | None = None
    busy: int = 0
    idle_since_s: float = 0.0
    places: set[Place] = field(default_factory=set)
    keeper: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _Opened:
    place: Place
    stage: Stage
    sent: bytes = field(repr=False)
    running: set[asyncio.Future[Execution]] = field(default_factory=set, repr=False)
    """Also what nobody waits for any more."""


class ReplicaPool(Executor):
    """Replicas of `slots` batches at a time each, between the bounds.

    `start_s` and `hop_ms` stand for how long a start and the way to a replica take until one was
    measured. A replica that is still busy `hung_s` after the last deadline of a batch is ended.
    """

    here = False

    def __init__(
        self,
        make: Make,
        *,
        bounds: Bounds,
        slots: int,
        start_s: float,
        hop_ms: float,
        hung_s: float = 60.0,
        clock: Clock = monotonic,
    ) -> None:
        self._make = make
        self._bounds = bounds
        self._slots = slots
        self._start_s = start_s
        self._hop_ms = hop_ms
        self._hung_s = hung_s
        self._clock = clock
        self._seats: list[_Seat] = []
        self._keepers: set[asyncio.Task[None]] = set()
        self._opened: dict[Stage, _Opened] = {}
        self._places = itertools.count(1)
        self._names = itertools.count(1)
        self._deaths = 0
        self._changed: Callable[[], None] = lambda: None
        self._all_ready: asyncio.Future[None] | None = None
        self._scaling: asyncio.Task[None] | None = None

    @property
    def capacity(self) -> Capacity:
        waiting = [seat for seat in self._seats if seat.replica is None]
        return Capacity(
            instances=self._slots * sum(1 for _ in self._ready()),
            coming_s=tuple(seat.expected_s for seat in waiting for _ in range(self._slots)),
            on_demand_s=self._start_s,
        )

    @property
    def staff(self) -> Staff | None:
        ready = [*self._ready()]
        return Staff(
            ready=len(ready),
            starting=len(self._seats) - len(ready),
            deaths=self._deaths,
            processes={
                seat.name: seat.replica.pid
                for seat in ready
                if seat.replica is not None and seat.replica.pid is not None
            },
        )

    async def start(self, *, demand: Callable[[], Demand], changed: Callable[[], None]) -> None:
        """Returns once the least number of replicas is ready; ConfigError if they cannot be."""
        self._changed = changed
        self._all_ready = asyncio.get_running_loop().create_future()
        for _ in range(self._bounds.least):
            self._add_seat()
        if not self._seats:
            self._all_ready.set_result(None)
        await self._all_ready
        if self._bounds.elastic:
            self._scaling = asyncio.create_task(self._scale(demand))

    async def open(self, stage: Stage) -> Cost:
        try:
            sent = pickle.dumps(stage)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"{stage.key} cannot be handed to workers ({error}); serve it without them"
            ) from error
        opened = _Opened(next(self._places), stage, sent)
        self._opened[stage] = opened
        try:
            cost = await self._open(opened)
        except BaseException:
            del self._opened[stage]
            raise
        await asyncio.to_thread(stage.unload)
        return cost

    async def let_go(self, stage: Stage) -> None:
        opened = self._opened.pop(stage)
        if opened.running:  # a batch that came behind this order would be the end of a replica
            await asyncio.wait(opened.running)
        for seat in self._ready():
            seat.places.discard(opened.place)
            with contextlib.suppress(ReplicaLost):  # then it is forgotten as well
                await _call(seat, LetGo(opened.place))

    def run(self, works: Sequence[Work], stage: Stage) -> asyncio.Future[Execution]:
        opened = self._opened[stage]
        run = asyncio.ensure_future(self._run(works, opened))
        opened.running.add(run)
        run.add_done_callback(opened.running.discard)
        return run

    async def close(self) -> None:
        if self._scaling is not None:
            self._scaling.cancel()
        for keeper in self._keepers:
            _ask_to_end(keeper)
        tasks = [*self._keepers, *([self._scaling] if self._scaling else [])]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, works: Sequence[Work], opened: _Opened) -> Execution:
        seat = self._free_seat(opened.place)
        replica = seat.replica
        assert replica is not None
        seat.busy += 1
        now_s = self._clock()
        left_s = max(work.job.deadline_s for work in works) - now_s
        try:
            async with asyncio.timeout(max(0.0, left_s) + self._hung_s):
                order = send(works, stage=opened.stage, place=opened.place, now_s=now_s)
                told = await replica.call(order)
        except TimeoutError:
            log.warning("%s does not come back from %s, and is ended", seat.name, opened.stage.key)
            self._leave(seat, replica)
            await replica.stop(at_once=True)
            raise InstanceLost("what computed it did not come back") from None
        except ReplicaLost as error:
            self._leave(seat, replica)
            raise InstanceLost(str(error)) from error
        finally:
            if seat.replica is replica:
                seat.busy -= 1
                seat.idle_since_s = self._clock()
        execution = _opened_up(told)
        assert isinstance(execution, Execution)
        return _with_the_way(execution, took_ms=(self._clock() - now_s) * 1e3)

    def _free_seat(self, place: Place) -> _Seat:
        for seat in self._ready():
            if seat.busy < self._slots and place in seat.places:
                return seat
        raise InstanceLost("nothing that could compute it is left")

    async def _open(self, opened: _Opened) -> Cost:
        """At one seat first: what kills a replica when it is loaded does not kill them all."""
        seats = [*self._ready()]
        if not seats:
            hop_ms = self._hop_ms
            return _with_hop(opened.stage, opened.stage.cost, one_ms=hop_ms, full_ms=hop_ms)
        costs = [await self._open_first(seats, opened)]
        found = await asyncio.gather(
            *(self._open_at(seat, opened) for seat in seats if opened.place not in seat.places),
            return_exceptions=True,
        )
        for each in found:
            if isinstance(each, Cost):
                costs.append(each)
            elif not isinstance(each, ReplicaLost):
                raise each
        return min(costs, key=lambda cost: cost.predict_ms(1))  # the least disturbed

    async def _open_first(self, seats: Sequence[_Seat], opened: _Opened) -> Cost:
        """At one seat; at another if that dies, which may be chance, and then no more."""
        why = ""
        for seat in seats[:_DEATHS_TO_BLAME]:
            try:
                return await self._open_at(seat, opened)
            except ReplicaLost as error:
                why = str(error)
        raise ModelFault(f"{opened.stage.key}: a worker died of loading it: {why}")

    async def _open_at(self, seat: _Seat, opened: _Opened) -> Cost:
        cost = await _call(seat, Open(opened.place, opened.sent))
        assert isinstance(cost, Cost)
        one_ms = await self._hop(seat, opened.stage, 1)
        full_ms = await self._hop(seat, opened.stage, opened.stage.max_batch)
        seat.places.add(opened.place)
        return _with_hop(opened.stage, cost, one_ms=one_ms, full_ms=full_ms)

    async def _hop(self, seat: _Seat, stage: Stage, items: int) -> float:
        item_bytes = stage.contract.elements * DTYPES[stage.contract.dtype].itemsize
        order = Echo(np.zeros(items * item_bytes, np.uint8))
        took_ms: list[float] = []
        for _ in range(_ECHOES):
            started_s = self._clock()
            await _call(seat, order)
            took_ms.append((self._clock() - started_s) * 1e3)
        return statistics.median(took_ms)

    def _ready(self) -> Iterator[_Seat]:
        return (seat for seat in self._seats if seat.replica is not None)

    def _add_seat(self) -> None:
        name = f"worker {next(self._names)}"
        seat = _Seat(name, expected_s=self._clock() + self._start_s)
        self._seats.append(seat)
        seat.keeper = asyncio.create_task(self._keep(seat), name=name)
        seat.keeper.add_done_callback(self._kept)
        self._keepers.add(seat.keeper)

    def _kept(self, keeper: asyncio.Task[None]) -> None:
        self._keepers.discard(keeper)
        if keeper.cancelled() or (error := keeper.exception()) is None:
            return
        log.error("defect in the keeper of %s", keeper.get_name(), exc_info=error)
        if self._all_ready is not None and not self._all_ready.done():
            self._all_ready.set_exception(error)

    async def _keep(self, seat: _Seat) -> None:
        """Has somebody sit there, until this is cancelled."""
        failures = 0
        while True:
            replica = self._make(seat.name)
            began_s = self._clock()
            seat.expected_s = began_s + self._start_s
            self._changed()
            try:
                why = await self._sit(seat, replica, began_s)
            finally:
                self._leave(seat, replica)
                await replica.stop()
            lived_s = self._clock() - began_s
            failures = 0 if lived_s > self._start_s + _STEADY_S else failures + 1
            if failures >= _GIVE_UP_AFTER and not self._began:
                self._give_up(f"{seat.name} failed to start {failures} times: {why}")
                return
            pause_s = min(_FIRST_PAUSE_S * 2 ** (failures - 1), _LONGEST_PAUSE_S) if failures else 0
            seat.expected_s = self._clock() + pause_s + self._start_s
            log.error("%s is gone: %s; another is started in %.2f s", seat.name, why, pause_s)
            self._changed()
            await asyncio.sleep(pause_s)

    async def _sit(self, seat: _Seat, replica: Replica, began_s: float) -> str:
        """From its start to its end, and the reason for that."""
        try:
            await replica.start()
            seat.replica, ready = None, _Seat(seat.name, 0.0, replica)
            while waiting := [
                each for each in self._opened.values() if each.place not in ready.places
            ]:
                await self._open_at(ready, waiting[0])
        except ReplicaLost as error:
            return str(error)
        except HybridgeError as error:
            return f"it cannot load what is served: {error}"
        self._start_s = self._clock() - began_s
        seat.replica, seat.places, seat.busy = replica, ready.places, 0
        seat.idle_since_s = self._clock()
        log.info("%s is ready", seat.name)
        assert self._all_ready is not None
        if not self._all_ready.done() and sum(1 for _ in self._ready()) >= self._bounds.least:
            self._all_ready.set_result(None)
        self._changed()
        why = await replica.ended()
        self._deaths += 1
        return why

    @property
    def _began(self) -> bool:
        return self._all_ready is not None and self._all_ready.done()

    def _give_up(self, why: str) -> None:
        assert self._all_ready is not None
        if not self._all_ready.done():
            self._all_ready.set_exception(ConfigError(f"the workers cannot be started; {why}"))

    def _leave(self, seat: _Seat, replica: Replica) -> None:
        """Nothing is sent to a replica any more."""
        if seat.replica is replica:
            seat.replica = None
            seat.places = set()
            seat.expected_s = self._clock() + self._start_s
            self._changed()

    async def _scale(self, demand: Callable[[], Demand]) -> None:
        refused = 0
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            now, now_s = demand(), self._clock()
            ready = [*self._ready()]
            starting = len(self._seats) - len(ready)
            more = missing(
                self._bounds, now, refused_before=refused, ready=len(ready), starting=starting
            )
            refused = now.refused
            for _ in range(more):
                self._add_seat()
            idle_s = [0.0 if seat.busy else now_s - seat.idle_since_s for seat in ready]
            less = superfluous(self._bounds, idle_s, starting=starting + more)
            idlers = sorted(zip(idle_s, ready, strict=True), key=lambda each: each[0])
            for _, seat in idlers[len(idlers) - less :]:
                self._dismiss(seat)

    def _dismiss(self, seat: _Seat) -> None:
        log.info("%s has idled for %g s, and is let go", seat.name, self._bounds.idle_s)
        self._seats.remove(seat)
        seat.replica = None
        self._changed()
        assert seat.keeper is not None
        _ask_to_end(seat.keeper)


def _ask_to_end(keeper: asyncio.Task[None]) -> None:
    """Once: a second time would keep it from seeing its replica out."""
    if not keeper.cancelling():
        keeper.cancel()


async def _call(seat: _Seat, order: Order) -> Told:
    if seat.replica is None:
        raise ReplicaLost("it is gone")
    return _opened_up(await seat.replica.call(pack(order)))


def _opened_up(parcel: Parcel) -> Told:
    told: Told = unpack(parcel)
    if isinstance(told, HybridgeError):
        raise told
    return told


def _with_hop(stage: Stage, cost: Cost, *, one_ms: float, full_ms: float) -> Cost:
    """The way there is a part of what a batch costs, and makes larger ones worth more."""
    items = stage.max_batch
    fit = Cost.fit(
        one_ms=cost.predict_ms(1) + one_ms,
        full_ms=cost.predict_ms(items) + full_ms,
        full_items=items,
    )
    return msgspec.structs.replace(fit, crowd_items=cost.crowd_items)


def _with_the_way(execution: Execution, *, took_ms: float) -> Execution:
    """Seen from here: an edge takes for its link what is no computing."""
    outcomes = tuple(
        msgspec.structs.replace(each, compute_ms=took_ms) if isinstance(each, Answer) else each
        for each in execution.outcomes
    )
    return msgspec.structs.replace(execution, outcomes=outcomes, took_ms=took_ms)

"""Real threads on a real loop; what takes how long is told by events."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from hybridge.edge.duration import NO_TIME, Duration
from hybridge.edge.lane import Lane
from hybridge.shared.deadline import Deadline, monotonic

SOON_S = 20.0


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Gate:
    """Work that tells when it begins, and ends when it may."""

    begun: threading.Event = field(default_factory=threading.Event)
    may_end: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> str:
        self.begun.set()
        assert self.may_end.wait(SOON_S)
        return "gate"

    async def taken(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, SOON_S)


@pytest.fixture
def make_lane() -> Iterator[Callable[..., Lane]]:
    lanes: list[Lane] = []

    def make(*, threads: int = 1, clock: Callable[[], float] = monotonic, nice: int = 0) -> Lane:
        lanes.append(Lane("test", threads=threads, clock=clock, nice=nice))
        return lanes[-1]

    yield make
    for lane in lanes:
        lane.close()


def by(at_ms: float) -> Deadline:
    return Deadline(0.0, at_ms)


async def submitted(lane: Lane, *works: tuple[Callable[[], object], Deadline]) -> list[object]:
    """Tasks whose jobs wait in the lane, in this order."""
    tasks = [lane.run(work, deadline=deadline) for work, deadline in works]
    await asyncio.sleep(0)  # each runs up to where it awaits its turn
    return list(tasks)


async def test_what_work_returns_and_raises(make_lane: Callable[..., Lane]) -> None:
    lane = make_lane(threads=2)
    here = threading.get_ident()
    assert await lane.run(threading.get_ident, deadline=by(1)) != here

    def fail() -> None:
        raise ValueError("no picture")

    with pytest.raises(ValueError, match="no picture"):
        await lane.run(fail, deadline=by(1))
    assert await lane.run(lambda: 5, deadline=by(1)) == 5  # its threads live on


@pytest.mark.parametrize("nice", [0, 5])
async def test_the_earliest_deadline_goes_first(make_lane: Callable[..., Lane], nice: int) -> None:
    lane, gate = make_lane(nice=nice), Gate()
    order: list[str] = []
    held = lane.run(gate, deadline=by(1))
    await gate.taken()
    tasks = await submitted(
        lane,
        (lambda: order.append("late"), by(300)),
        (lambda: order.append("early"), by(100)),
        (lambda: order.append("early, second"), by(100)),
        (lambda: order.append("middle"), by(200)),
    )
    gate.may_end.set()
    await asyncio.gather(held, *tasks)  # type: ignore[arg-type]
    assert order == ["early", "early, second", "middle", "late"]


async def test_jobs_that_nobody_awaits_are_never_begun(make_lane: Callable[..., Lane]) -> None:
    lane, gate = make_lane(), Gate()
    begun: list[str] = []
    held = lane.run(gate, deadline=by(1))
    await gate.taken()
    dropped, kept = (
        lane.run(lambda name=name: begun.append(name), deadline=by(2))  # type: ignore[misc]
        for name in ("dropped", "kept")
    )
    await asyncio.sleep(0)
    dropped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dropped
    gate.may_end.set()
    await asyncio.gather(held, kept)
    assert begun == ["kept"]


async def test_who_leaves_while_his_job_runs_disturbs_nobody(
    make_lane: Callable[..., Lane],
) -> None:
    lane, gate = make_lane(), Gate()
    held = lane.run(gate, deadline=by(1))
    await gate.taken()
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held
    after = lane.run(lambda: "after", deadline=by(2))
    gate.may_end.set()
    assert await asyncio.wait_for(after, SOON_S) == "after"


async def test_closing_lets_what_runs_end_and_forgets_what_waits(
    make_lane: Callable[..., Lane],
) -> None:
    lane, gate = make_lane(), Gate()
    held = lane.run(gate, deadline=by(1))
    await gate.taken()
    waiting = lane.run(lambda: "never", deadline=by(1))
    await asyncio.sleep(0)
    lane.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.may_end.set()
    assert await held == "gate"


async def test_as_many_run_at_once_as_there_are_threads(make_lane: Callable[..., Lane]) -> None:
    lane = make_lane(threads=3)
    together = threading.Barrier(3)
    works = (lane.run(lambda: together.wait(SOON_S), deadline=by(1)) for _ in range(3))
    assert sorted(await asyncio.gather(*works)) == [0, 1, 2]


async def test_how_long_one_would_wait(make_lane: Callable[..., Lane]) -> None:
    clock = Clock()
    lane, gate = make_lane(clock=clock), Gate()
    assert lane.wait(by(100)) == NO_TIME
    running = lane.run(gate, deadline=by(1), expected=Duration(40.0, 4.0))
    await gate.taken()
    assert lane.wait(by(100)) == Duration(40.0, 4.0)
    clock.now_s += 0.030
    assert lane.wait(by(100)).mean_ms == pytest.approx(10.0)
    clock.now_s += 0.030
    assert lane.wait(by(100)) == Duration(0.0, 4.0)  # overdue: it may end any moment
    tasks = [
        asyncio.ensure_future(
            lane.run(lambda: None, deadline=by(at_ms), expected=Duration(at_ms / 10, 1.0))
        )
        for at_ms in (50.0, 150.0)
    ]
    await asyncio.sleep(0)
    assert lane.wait(by(100)) == Duration(5.0, 5.0)  # the later deadline stands behind
    assert lane.wait(by(200)) == Duration(20.0, 6.0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    assert lane.wait(by(200)) == Duration(15.0, 5.0)  # nobody awaits it any more
    gate.may_end.set()
    await asyncio.gather(running, tasks[1])
    assert lane.wait(by(200)) == NO_TIME


async def test_a_free_thread_means_no_waiting(make_lane: Callable[..., Lane]) -> None:
    lane, gate = make_lane(threads=2, clock=Clock()), Gate()
    running = lane.run(gate, deadline=by(1), expected=Duration(40.0, 4.0))
    await gate.taken()
    assert lane.wait(by(100)) == NO_TIME
    gate.may_end.set()
    await running


def test_a_loop_that_has_ended_is_told_nothing(make_lane: Callable[..., Lane]) -> None:
    lane, gate = make_lane(), Gate()

    async def leave() -> None:
        task = lane.run(gate, deadline=by(1))
        await gate.taken()
        task.cancel()

    asyncio.run(leave())
    gate.may_end.set()

    async def come_back() -> str:
        return await lane.run(lambda: "still there", deadline=by(1))

    assert asyncio.run(come_back()) == "still there"


async def test_what_is_lost_takes_no_other_with_it(make_lane: Callable[..., Lane]) -> None:
    clock = Clock(now_s=0.0)
    lane, gate = make_lane(clock=clock), Gate()
    order: list[str] = []
    held = lane.run(gate, deadline=by(1))
    await gate.taken()
    tasks = await submitted(
        lane,
        (lambda: order.append("lost, second"), by(60)),
        (lambda: order.append("lost"), by(50)),
        (lambda: order.append("in time, second"), by(300)),
        (lambda: order.append("in time"), by(200)),
    )
    clock.now_s = 0.1
    gate.may_end.set()
    await asyncio.gather(held, *tasks)
    assert order == ["in time", "in time, second", "lost", "lost, second"]


async def test_what_is_lost_is_waited_for_only_by_what_is_lost(
    make_lane: Callable[..., Lane],
) -> None:
    clock = Clock(now_s=0.0)
    lane, gate = make_lane(clock=clock), Gate()
    held = lane.run(gate, deadline=by(1), expected=NO_TIME)
    await gate.taken()
    lost = lane.run(lambda: None, deadline=by(50), expected=Duration(7.0))
    assert lane.wait(by(200)).mean_ms == 7.0
    clock.now_s = 0.1
    assert lane.wait(by(200)).mean_ms == 0.0
    assert lane.wait(by(60)).mean_ms == 7.0
    gate.may_end.set()
    await asyncio.gather(held, lost)

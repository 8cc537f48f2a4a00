import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from hybridge.cloud.backend import Backend, Result
from hybridge.cloud.cost import Cost
from hybridge.cloud.executors.threads import Threads
from hybridge.cloud.job import StageKey
from hybridge.cloud.stage import Stage
from hybridge.cloud.work import Answer, Execution, Work
from hybridge.cloud.worker import Worker
from hybridge.shared.contract import Contract
from hybridge.shared.deadline import Deadline, monotonic
from hybridge.shared.errors import DeadlineUnmet, FrameError, InstanceLost, ModelFault
from hybridge.shared.manifest import OutputKind
from hybridge.shared.side import Tensors
from hybridge.shared.tensor import Array, view_raw

BAD, NAN = 200, 100


class Echo(Backend):
    """Gives its input back; fails on some, waits for `allowed`, remembers its batches."""

    device = "cpu"

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.allowed = threading.Event()
        self.batches: list[list[int]] = []

    def run(self, batch: Array, sides: Tensors) -> Result:
        self.entered.release()
        assert self.allowed.wait(60)
        self.batches.append(batch[:, 0].tolist())
        if (batch == BAD).any():
            raise RuntimeError("cannot compute\nthis\nlong story")
        return Result(np.where(batch == NAN, np.nan, batch).astype(np.float32))


@pytest.fixture
def backend() -> Echo:
    return Echo()


@pytest.fixture
def stage(backend: Echo) -> Stage:
    """A stage that batches up to four items and needs about a millisecond."""
    stage = Stage(
        key=StageKey("echo", "1"),
        contract=Contract(tensor="x", shape=(2,), dtype="UINT8", model="none"),
        output=OutputKind.PROBABILITIES,
        classes=2,
        max_batch=4,
        open=lambda: backend,
    )
    stage._backend = backend
    stage._cost = Cost(fixed_ms=1.0, per_item_ms=0.0, batch_items=4)
    return stage


@pytest.fixture
async def worker(stage: Stage, backend: Echo) -> AsyncIterator[Worker]:
    worker = Worker(executor=Threads(1), queue_limit=10)
    worker.add_stage(stage)
    yield worker
    backend.allowed.set()
    await worker.close()


def submit(
    worker: Worker, stage: Stage, value: int, *, budget_ms: float = 60_000.0
) -> asyncio.Task[Answer]:
    def load() -> Array:
        if value < 0:
            raise FrameError("cannot be decoded")
        return np.full((1, 2), value, np.uint8)

    deadline = Deadline.after_ms(budget_ms, now_s=monotonic())
    return asyncio.ensure_future(worker.run(stage, load=load, items=1, deadline=deadline))


async def running(backend: Echo) -> None:
    assert await asyncio.to_thread(backend.entered.acquire, timeout=30)


async def test_faults_stay_with_their_request(worker: Worker, stage: Stage, backend: Echo) -> None:
    first = submit(worker, stage, 0)
    await running(backend)
    rest = [submit(worker, stage, value) for value in (1, BAD, NAN, -1)]
    await asyncio.sleep(0)
    backend.allowed.set()
    good, bad, nan, broken = await asyncio.gather(*rest, return_exceptions=True)
    assert (await first).probabilities.tolist() == [[0, 0]]
    assert isinstance(good, Answer)
    assert good.probabilities.tolist() == [[1, 1]]
    assert good.queue_ms > 0
    assert isinstance(bad, ModelFault)
    assert str(bad) == "echo/1/whole: cannot compute"
    assert isinstance(nan, ModelFault)
    assert isinstance(broken, FrameError)
    assert backend.batches == [[0], [1, BAD, NAN], [1], [BAD], [NAN]]


class Loading:
    """Makes an input; the end of it can be seen."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __call__(self) -> Array:
        if self.value < 0:
            raise FrameError("cannot be decoded")
        return np.full((1, 2), self.value, np.uint8)


async def check_kept_by_nobody(
    worker: Worker, stage: Stage, value: int, fault: type[Exception], *, budget_ms: float = 60_000.0
) -> None:
    """A request that ends with a fault, whose input is let go without the garbage collector."""
    load, gone, loop = Loading(value), asyncio.Event(), asyncio.get_running_loop()
    held = weakref.ref(load, lambda held: loop.call_soon_threadsafe(gone.set))
    deadline = Deadline.after_ms(budget_ms, now_s=monotonic())
    gc.disable()
    try:
        with pytest.raises(fault):
            await worker.run(stage, load=load, at_hand=True, items=1, deadline=deadline)
        del load
        async with asyncio.timeout(30):
            await gone.wait()  # the threads that told it are done with it in a moment
        assert held() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("on_loop", [False, True])
@pytest.mark.parametrize(
    ("value", "fault"), [(BAD, ModelFault), (NAN, ModelFault), (-1, FrameError)]
)
async def test_a_fault_lets_go_of_its_input(
    worker: Worker,
    stage: Stage,
    backend: Echo,
    value: int,
    fault: type[Exception],
    on_loop: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)  # pytest keeps what is logged, faults among it
    backend.allowed.set()
    backend.bounded = on_loop
    stage._cost = Cost(fixed_ms=0.0, per_item_ms=0.1)
    await check_kept_by_nobody(worker, stage, value, fault)


async def test_a_missed_deadline_lets_go_of_its_input(
    worker: Worker, stage: Stage, backend: Echo
) -> None:
    first = submit(worker, stage, 0)
    await running(backend)
    await check_kept_by_nobody(worker, stage, 1, DeadlineUnmet, budget_ms=30)
    backend.allowed.set()
    await first


async def test_what_nobody_waits_for_is_not_computed(
    worker: Worker, stage: Stage, backend: Echo
) -> None:
    first = submit(worker, stage, 0)
    await running(backend)
    gone, stays = submit(worker, stage, 1), submit(worker, stage, 2)
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    backend.allowed.set()
    await asyncio.gather(first, stays)
    assert backend.batches == [[0], [2]]


async def test_a_waiting_request_is_told_at_its_deadline(
    worker: Worker, stage: Stage, backend: Echo
) -> None:
    first = submit(worker, stage, 0)
    await running(backend)
    with pytest.raises(DeadlineUnmet):
        await submit(worker, stage, 1, budget_ms=30)
    backend.allowed.set()
    await first
    assert backend.batches == [[0]]


async def test_a_lingering_batch_starts_by_itself(
    worker: Worker, stage: Stage, backend: Echo
) -> None:
    backend.allowed.set()
    together = [submit(worker, stage, value) for value in (1, 2)]
    await asyncio.gather(*together)
    assert backend.batches == [[1, 2]]


class Dying(Threads):
    """Loses so many batches before it runs any."""

    def __init__(self, deaths: int, error: Exception) -> None:
        super().__init__(1)
        self.deaths = deaths
        self.error = error

    def run(self, works: Sequence[Work], stage: Stage) -> asyncio.Future[Execution]:
        if not self.deaths:
            return super().run(works, stage)
        self.deaths -= 1
        lost: asyncio.Future[Execution] = asyncio.get_running_loop().create_future()
        lost.set_exception(self.error)
        return lost


@pytest.mark.parametrize("deaths", [1, 2])
async def test_what_is_lost_is_tried_once_more(stage: Stage, backend: Echo, deaths: int) -> None:
    worker = Worker(executor=Dying(deaths, InstanceLost("it died")), queue_limit=10)
    worker.add_stage(stage)
    backend.allowed.set()
    call = submit(worker, stage, 1)
    if deaths == 1:
        assert (await call).probabilities.tolist() == [[1, 1]]
    else:
        with pytest.raises(InstanceLost, match="it died, as did the one that tried before it"):
            await call
    assert (await submit(worker, stage, 2)).probabilities.tolist() == [[2, 2]]
    await worker.close()


async def test_a_defect_of_an_executor_costs_its_batch_alone(stage: Stage, backend: Echo) -> None:
    worker = Worker(executor=Dying(1, ZeroDivisionError("a defect")), queue_limit=10)
    worker.add_stage(stage)
    backend.allowed.set()
    with pytest.raises(ZeroDivisionError):
        await submit(worker, stage, 1)
    assert (await submit(worker, stage, 2)).probabilities.tolist() == [[2, 2]]
    await worker.close()


class Quick(Backend):
    """Remembers on which thread each batch was computed."""

    device = "cpu"

    def __init__(self, *, bounded: bool) -> None:
        self.bounded = bounded
        self.threads: list[threading.Thread] = []

    def run(self, batch: Array, sides: Tensors) -> Result:
        self.threads.append(threading.current_thread())
        return Result(batch.astype(np.float32))


@pytest.mark.parametrize(
    ("bounded", "most", "sizes"), [(True, 4, {1, 2, 4}), (False, 4, {1, 4}), (True, 1, {1})]
)
def test_sizes_are_measured_in_turns(
    stage: Stage, bounded: bool, most: int, sizes: set[int]
) -> None:
    class Sizes(Quick):
        def run(self, batch: Array, sides: Tensors) -> Result:
            ran.append(len(batch))
            return super().run(batch, sides)

    ran: list[int] = []
    stage._backend = stage._cost = None
    stage.open, stage.max_batch = lambda: Sizes(bounded=bounded), most
    stage.load()
    tried = 1 + len(sizes - {1})  # the first runs allocate
    assert ran[tried:] == sorted(sizes) * 5


@pytest.mark.parametrize(
    ("bounded", "at_hand", "run_ms", "on_loop"),
    [
        (True, True, 0.01, True),
        (False, True, 0.01, False),  # might never return
        (True, False, 0.01, False),  # has to be decoded
        (True, True, 10.0, False),
    ],
)
async def test_on_the_loop_only_what_certainly_takes_no_time(
    stage: Stage, bounded: bool, at_hand: bool, run_ms: float, on_loop: bool
) -> None:
    backend = Quick(bounded=bounded)
    stage._backend, stage._cost = backend, Cost(fixed_ms=0.0, per_item_ms=run_ms)
    worker = Worker(executor=Threads(1), queue_limit=10)
    worker.add_stage(stage)
    answer = await worker.run(
        stage,
        load=lambda: np.full((1, 2), 7, np.uint8),
        at_hand=at_hand,
        items=1,
        deadline=Deadline.after_ms(60_000.0, now_s=monotonic()),
    )
    assert answer.probabilities.tolist() == [[7, 7]]
    assert [thread is threading.main_thread() for thread in backend.threads] == [on_loop]
    await worker.close()


async def test_what_traffic_teaches_keeps_nothing_off_the_loop(stage: Stage) -> None:
    backend = Quick(bounded=True)
    stage._backend, stage._cost = backend, Cost(fixed_ms=0.0, per_item_ms=0.1)
    worker = Worker(executor=Threads(1), queue_limit=10)
    worker.add_stage(stage)
    cost = worker.cost(stage)
    assert cost is not None
    for _ in range(100):  # a slow spell, or the way to a thread and back
        cost.observe(1, took_ms=5.0, now_s=monotonic())
    await worker.run(
        stage,
        load=lambda: np.full((1, 2), 7, np.uint8),
        at_hand=True,
        items=1,
        deadline=Deadline.after_ms(60_000.0, now_s=monotonic()),
    )
    assert backend.threads == [threading.main_thread()]
    await worker.close()


async def test_a_stage_gets_its_inputs_aligned(stage: Stage) -> None:
    class Looking(Quick):
        def run(self, batch: Array, sides: Tensors) -> Result:
            seen.extend([batch, sides["side"]])
            return Result(np.zeros((1, 2), np.float32))

    seen: list[Array] = []
    stage._backend, stage._cost = Looking(bounded=True), Cost(fixed_ms=0.0, per_item_ms=1.0)
    worker = Worker(executor=Threads(1), queue_limit=10)
    worker.add_stage(stage)
    stage.fits = lambda batch, *, items: True  # type: ignore[method-assign]
    raw = bytearray(b"-") + np.arange(2, dtype=np.float32).tobytes()
    crooked = view_raw(memoryview(raw)[1:], datatype="FP32", shape=(1, 2))
    assert not crooked.flags.aligned
    await worker.run(
        stage,
        load=lambda: crooked,
        items=1,
        sides={"side": crooked},
        deadline=Deadline.after_ms(60_000.0, now_s=monotonic()),
    )
    assert [each.flags.aligned for each in seen] == [True, True]
    assert [each.tolist() for each in seen] == [[[0.0, 1.0]]] * 2
    await worker.close()

"""Work: what stands behind the scheduler's jobs, and how an instance carries it out."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import accumulate

import msgspec
import numpy as np

from ..shared.answer import Probabilities
from ..shared.deadline import Clock
from ..shared.errors import (
    DeadlineUnmet,
    HybridgeError,
    ModelFault,
    RemoteTooLate,
    RemoteUnavailable,
    TensorError,
)
from ..shared.side import Tensors, items_of, joined
from ..shared.tensor import Array, aligned
from .audience import WAITING, Task
from .job import Job
from .stage import Computed, Stage

log = logging.getLogger(__name__)

Load = Callable[[], Array]
"""Makes the inputs [items, ...] of a job: a codec's decoding, done by the instance.

Can be pickled: the instance may be elsewhere.
"""


class Answer(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Probabilities [items, classes] of a classifier, all further outputs, where the time went.

    `decode_ms` is the part of `compute_ms` in which the inputs of the batch were made.
    """

    probabilities: Probabilities | None
    outputs: Tensors = {}
    queue_ms: float
    compute_ms: float
    decode_ms: float


class Work(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A job, its input and whoever waits for it (faults as values: the waiter may be gone).

    `sides` are the model's further inputs, [items, ...] each.
    """

    job: Job
    load: Load
    sides: Tensors = {}
    answer: asyncio.Future[Answer | Exception]

    @property
    def unwanted(self) -> bool:
        """True once nobody waits any more; may be asked from any thread."""
        return self.answer.done()

    def when_done(self, act: Callable[[object], object]) -> None:
        """Calls `act` on the waiter's event loop once nobody waits any more; from any thread."""
        self.answer.get_loop().call_soon_threadsafe(self.answer.add_done_callback, act)


class Errand(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A work whose waiter cannot leave, or cannot say so, while it is carried out."""

    job: Job
    load: Load
    sides: Tensors = {}
    unwanted: bool = False

    def when_done(self, act: Callable[[object], object]) -> None:
        """Nobody tells; the deadline ends it."""


class Execution(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What became of a batch: one outcome per work, in order; None for the unwanted."""

    outcomes: tuple[Answer | Exception | None, ...]
    items: int
    took_ms: float
    decode_ms: float


def execute(works: Sequence[Task], *, stage: Stage, clock: Clock) -> Execution:
    """Loads, computes and checks a batch on the calling thread; never raises."""
    started_s = clock()
    outcomes: list[Answer | Exception | None] = [None] * len(works)
    inputs: dict[int, _Loaded] = {}
    for at, work in enumerate(works):
        if work.unwanted:
            continue
        if work.job.deadline_s <= started_s:
            outcomes[at] = DeadlineUnmet("it passed while the request waited")
            continue
        loaded = _load(work, stage)
        if isinstance(loaded, Exception):
            outcomes[at] = loaded
        else:
            inputs[at] = loaded
    decode_ms = (clock() - started_s) * 1e3
    waiting = WAITING.set(works)
    try:
        results = _compute(inputs, stage)
    finally:
        WAITING.reset(waiting)
    took_ms = (clock() - started_s) * 1e3
    items = 0
    for at, result in results.items():
        items += works[at].job.items
        if isinstance(result, Exception):
            outcomes[at] = result
        else:
            outcomes[at] = Answer(
                probabilities=result.probabilities,
                outputs=result.outputs,
                queue_ms=(started_s - works[at].job.arrived_s) * 1e3,
                compute_ms=took_ms,
                decode_ms=decode_ms,
            )
    return Execution(outcomes=tuple(outcomes), items=items, took_ms=took_ms, decode_ms=decode_ms)


class _Loaded(msgspec.Struct, frozen=True, eq=False):
    tensor: Array
    sides: Tensors


def _load(work: Task, stage: Stage) -> _Loaded | Exception:
    """Its inputs; whatever goes wrong belongs to this request alone."""
    try:
        array = aligned(work.load())
        if not stage.fits(array, items=work.job.items):
            raise TensorError(f"{list(array.shape)} does not fit {stage.key}")
        return _Loaded(array, {name: aligned(side) for name, side in work.sides.items()})
    except Exception as error:
        return _as_value(error)


def _compute(inputs: dict[int, _Loaded], stage: Stage) -> dict[int, Computed | Exception]:
    """One run for all; if that fails, one for each, so that a fault stays with its request."""
    if len(inputs) <= 1:
        return {at: _run([loaded], stage) for at, loaded in inputs.items()}
    computed = _run([*inputs.values()], stage)
    if isinstance(computed, RemoteUnavailable | RemoteTooLate | DeadlineUnmet):
        return dict.fromkeys(inputs, computed)
    if isinstance(computed, Exception):
        return {at: _run([loaded], stage) for at, loaded in inputs.items()}
    made = computed.probabilities
    sizes = [len(loaded.tensor) for loaded in inputs.values()]
    return {
        at: Computed(
            None if made is None else made[end - size : end],
            items_of(computed.outputs, end - size, end),
        )
        for at, size, end in zip(inputs, sizes, accumulate(sizes), strict=True)
    }


def _run(inputs: Sequence[_Loaded], stage: Stage) -> Computed | Exception:
    try:
        if len(inputs) == 1:
            return stage.run(inputs[0].tensor, inputs[0].sides)
        batch = np.concatenate([loaded.tensor for loaded in inputs])
        return stage.run(batch, joined([loaded.sides for loaded in inputs]))
    except Exception as error:  # whose fault it is shows when each has run for itself
        if isinstance(error, ModelFault) and len(inputs) == 1:
            log.warning("%s", error)
        return _as_value(error)


def _as_value(error: Exception) -> Exception:
    """A fault without the frames it passed: they keep each other, and the inputs of the batch.

    A defect keeps them, since they are what its log is about.
    """
    if isinstance(error, HybridgeError):
        error.__traceback__ = error.__cause__ = error.__context__ = None
    return error

"""What the cloud has done since its start, in figures: kept by requests, read by every report.

Kept here rather than in a metrics library, because the Open Inference Protocol asks for the same
figures, and because adding to plain numbers is all that a request can afford. All methods belong to
one event loop.
"""

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType

from ..shared.deadline import Clock, Deadline, monotonic
from ..shared.errors import (
    DeadlineRefused,
    DeadlineUnmet,
    HybridgeError,
    Overloaded,
    RequestError,
    ShareUsedUp,
    UnknownContract,
    UnknownModel,
    meaning,
)
from .growth import GrowthWatch
from .job import StageKey
from .residence import Reason
from .work import Answer, Execution

BOUNDS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper ends of the buckets of a latency, apart from the last, which has none."""

_SAME_INSTANT_MS = 1.0
"""gRPC ends a call at the deadline by a clock of its own; so far apart it is the same deadline."""


class Refusal(StrEnum):
    """Why a request was not accepted."""

    BAD_REQUEST = "bad_request"
    DEADLINE = "deadline"
    MEMORY = "memory"
    NOT_SERVED = "not_served"
    QUEUE_FULL = "queue_full"
    SHARE = "share"


_REFUSALS: tuple[tuple[type[HybridgeError], Refusal], ...] = (
    (RequestError, Refusal.BAD_REQUEST),
    (ShareUsedUp, Refusal.SHARE),
    (DeadlineRefused, Refusal.DEADLINE),
    (UnknownContract, Refusal.NOT_SERVED),
    (UnknownModel, Refusal.NOT_SERVED),
    (Overloaded, Refusal.QUEUE_FULL),
)


@dataclass(slots=True)
class Durations:
    """How long something took, each time: a histogram over BOUNDS_S and the sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    sum_s: float = 0.0

    def add(self, took_s: float) -> None:
        self.counts[bisect_left(BOUNDS_S, took_s)] += 1
        self.sum_s += took_s

    @property
    def count(self) -> int:
        return sum(self.counts)


@dataclass(slots=True)
class BatchFigures:
    """Executions of one batch size."""

    count: int = 0
    decode_s: float = 0.0
    compute_s: float = 0.0


@dataclass(slots=True)
class ModelFigures:
    """One version of a model, or all requests that no model was found for."""

    codes: Counter[str] = field(default_factory=Counter)
    """Requests by the name of the gRPC status they ended with, whichever way they came."""
    refusals: Counter[Refusal] = field(default_factory=Counter)
    missed: int = 0
    items: int = 0
    failed_s: float = 0.0
    last_inference_s: float = 0.0
    """Seconds since the epoch; 0 before the first."""
    queue: Durations = field(default_factory=Durations)
    decode: Durations = field(default_factory=Durations)
    compute: Durations = field(default_factory=Durations)
    total: Durations = field(default_factory=Durations)
    batches: dict[int, BatchFigures] = field(default_factory=dict)
    loads: Durations = field(default_factory=Durations)
    """Of one graph into memory each, failed ones too."""
    failed_loads: int = 0
    evictions: Counter[Reason] = field(default_factory=Counter)

    def loaded(self, took_s: float, *, failed: bool) -> None:
        self.loads.add(took_s)
        self.failed_loads += failed

    @property
    def steps(self) -> dict[str, Durations]:
        """Where the time of answered requests went; `total` has all of them in it."""
        return {
            "queue": self.queue,
            "decode": self.decode,
            "compute": self.compute,
            "total": self.total,
        }


class Record:
    """One request, under way within a `with` block; a fault that leaves the block is counted.

    Whoever finds out says which model and which deadline it has.
    """

    __slots__ = ("_all", "deadline", "model", "started_s")

    def __init__(self, statistics: "Statistics", *, started_s: float) -> None:
        self.started_s = started_s
        self.model = statistics.unknown
        self.deadline: Deadline | None = None
        self._all = statistics

    def __enter__(self) -> "Record":
        self._all.in_flight += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._all.in_flight -= 1
        if error is not None:
            self.failed(error, now_s=self._all.clock())

    def answered(self, answer: Answer, *, items: int, now_s: float) -> None:
        model = self.model
        model.codes["OK"] += 1
        model.items += items
        model.last_inference_s = time.time()
        model.queue.add(answer.queue_ms / 1e3)
        model.decode.add(answer.decode_ms / 1e3)
        model.compute.add((answer.compute_ms - answer.decode_ms) / 1e3)
        model.total.add(now_s - self.started_s)

    def failed(self, error: BaseException, *, now_s: float) -> None:
        self.model.codes[code_of(error)] += 1
        self.model.failed_s += now_s - self.started_s
        for kind, reason in _REFUSALS:
            if isinstance(error, kind):
                self.model.refusals[reason] += 1
                return
        if isinstance(error, DeadlineUnmet) or self._ended_by_transport(error, now_s):
            self.model.missed += 1

    def _ended_by_transport(self, error: BaseException, now_s: float) -> bool:
        """Whether a call was cancelled because its deadline had come."""
        if not isinstance(error, asyncio.CancelledError) or self.deadline is None:
            return False
        return self.deadline.left_ms(now_s) <= _SAME_INSTANT_MS


@dataclass(slots=True, kw_only=True)
class PortFigures:
    """A port for HTTP: how many connections are open now, and how many were let go at once."""

    connections: Callable[[], int]
    refused: int = 0


class Statistics:
    """The figures of all models; only those that were added have any of their own."""

    def __init__(self, *, clock: Clock = monotonic) -> None:
        self.unknown = ModelFigures()
        self.in_flight = 0
        self.ports: dict[str, PortFigures] = {}
        self.growth = GrowthWatch()
        self.clock = clock
        self._models: dict[tuple[str, str], ModelFigures] = {}

    def add(self, name: str, version: str) -> None:
        """Counts a served model from now on, or goes on where it was unloaded."""
        self._models.setdefault((name, version), ModelFigures())

    def of(self, name: str, version: str) -> ModelFigures:
        return self._models.get((name, version), self.unknown)

    def __iter__(self) -> Iterator[tuple[str, str, ModelFigures]]:
        """All models, and what had none under an empty name and version."""
        for (name, version), figures in self._models.items():
            yield name, version, figures
        yield "", "", self.unknown

    def request(self, arrived_s: float | None = None) -> Record:
        """A request that arrived now, or then."""
        return Record(self, started_s=self.clock() if arrived_s is None else arrived_s)

    def misread(self, error: RequestError) -> None:
        """Counts what has turned out to be no request."""
        now_s = self.clock()
        Record(self, started_s=now_s).failed(error, now_s=now_s)

    def executed(self, stage: StageKey, execution: Execution) -> None:
        """Counts a batch of which anything was computed."""
        if not execution.items:
            return
        batches = self.of(stage.model, stage.version).batches
        figures = batches.get(execution.items)
        if figures is None:
            figures = batches[execution.items] = BatchFigures()
        figures.count += 1
        figures.decode_s += execution.decode_ms / 1e3
        figures.compute_s += (execution.took_ms - execution.decode_ms) / 1e3


def code_of(error: BaseException) -> str:
    """The name of the gRPC status that an error ends a request with."""
    if isinstance(error, HybridgeError):
        return meaning(error).grpc_status.name
    return "CANCELLED" if isinstance(error, asyncio.CancelledError) else "INTERNAL"

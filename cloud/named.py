"""Models whose tensors all have names of their own, as other servers' repositories hold them.

What a request brings goes in under its names, and all outputs come out under theirs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import cast

import msgspec
import numpy as np

from ..protos import model_config_pb2 as pb
from ..shared.contract import Contract
from ..shared.errors import ModelFault, TensorError
from ..shared.manifest import OutputKind, Precision
from ..shared.oip import InputTensor, RequestedOutput
from ..shared.security import MAX_MESSAGE_BYTES
from ..shared.side import Tensors, wanted_outputs
from ..shared.tensor import DTYPES, Array, datatype_of
from .backend import Backend, Result
from .cost import Cost
from .job import StageKey
from .model import Model, Told, sendable
from .priorities import Priorities
from .stage import Computed, Stage
from .triton_config import priorities_of
from .work import Answer

_MEASURED_ITEMS = 8
"""What config.pbtxt allows a request may be far more than anybody sends."""
_BUDGET_MS = 60_000.0
"""Where neither the request nor config.pbtxt says one."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor of such a model, per item where it batches; -1 stands for a size that varies."""

    name: str
    datatype: str
    dims: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.datatype} {list(self.dims)}"

    @property
    def varies(self) -> bool:
        return -1 in self.dims

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) == len(self.dims) and all(
            size in (-1, given) for size, given in zip(self.dims, shape, strict=True)
        )

    def zeros(self, items: int) -> Array:
        shape = [max(size, 1) for size in self.dims]
        return cast(Array, np.zeros((items, *shape), DTYPES[self.datatype]))


class Source(ABC):
    """What runs such a model: all it takes and gives, axis of items included where there is one."""

    takes: Mapping[str, Slot]
    gives: Mapping[str, Slot]
    device: str
    max_batch: int | None = None
    """How many items it takes at once, where it says."""

    @abstractmethod
    def run(self, fed: Tensors, *, outputs: Sequence[str]) -> Tensors:
        """Some outputs for all inputs; raises whatever it raises."""

    @property
    def ready(self) -> bool:
        """Whether it can answer, as far as is known without asking it."""
        return True

    def close(self) -> None:  # noqa: B027  most hold nothing but memory
        """Lets go of what it holds."""


class NamedBackend(Backend):
    """Feeds a source; one that does not batch gets its tensors without that axis."""

    def __init__(
        self, source: Source, *, first: str, outputs: Sequence[str], batches: bool
    ) -> None:
        self._source = source
        self._first = first
        self._outputs = outputs
        self._batches = batches
        self.device = source.device

    @property
    def ready(self) -> bool:
        return self._source.ready

    def run(self, batch: Array, sides: Tensors) -> Result:
        fed = {self._first: batch, **sides}
        if self._batches:
            return Result(None, self._source.run(fed, outputs=self._outputs))
        single = {name: array[0] for name, array in fed.items()}
        made = self._source.run(single, outputs=self._outputs)
        return Result(None, {name: array[None] for name, array in made.items()})

    def close(self) -> None:
        self._source.close()


@dataclass
class Opening:
    """Opens a source for a stage: first the one that is open already, later and elsewhere anew."""

    anew: Callable[[], Source]
    opened: Source | None = None

    def __call__(self) -> Source:
        source, self.opened = self.opened or self.anew(), None
        return source

    def __getstate__(self) -> dict[str, object]:
        return {"anew": self.anew, "opened": None}


def _backend(opening: Opening, *, first: str, outputs: Sequence[str], batches: bool) -> Backend:
    return NamedBackend(opening(), first=first, outputs=outputs, batches=batches)


@dataclass(kw_only=True, eq=False)
class NamedStage(Stage):
    """Checks all outputs alike. Requests are batched together only if `together` allows so many."""

    takes: tuple[Slot, ...]
    gives: tuple[Slot, ...]
    together: int
    linger_ms: float
    output: OutputKind = field(default=OutputKind.PROBABILITIES, init=False)
    classes: int = field(default=0, init=False)

    def fits(self, batch: Array, *, items: int) -> bool:
        return len(batch) == items and self.takes[0].fits(batch.shape[1:])

    def run(self, batch: Array, sides: Tensors) -> Computed:
        made = self._result(batch, sides).outputs
        for slot in self.gives:
            array = made.get(slot.name)
            if array is None or len(array) != len(batch) or not slot.fits(array.shape[1:]):
                shape = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
                raise ModelFault(f"{self.key} gave {shape} where {slot} was declared")
            if datatype_of(array) != slot.datatype:
                raise ModelFault(f"{self.key} gave {array.dtype} where {slot} was declared")
        return Computed(None, {slot.name: made[slot.name] for slot in self.gives})

    def _zeros(self, items: int) -> tuple[Array, Tensors]:
        first, *others = self.takes
        return first.zeros(items), {slot.name: slot.zeros(items) for slot in others}

    @property
    def _measured_items(self) -> int:
        return min(self.max_batch, max(self.together, _MEASURED_ITEMS))

    def _measure(self) -> Cost:
        cost = super()._measure()
        batch_items = min(cost.batch_items, self.together)
        return msgspec.structs.replace(cost, batch_items=batch_items, most_linger_ms=self.linger_ms)


@dataclass(frozen=True)
class NamedModel(Model):
    """One version, as its configuration has it."""

    stage: NamedStage
    as_configured: pb.ModelConfig
    labels: tuple[str, ...] = ()
    precision = Precision.FLOAT32

    @property
    def config(self) -> pb.ModelConfig:
        return self.as_configured

    @property
    def name(self) -> str:
        return self.stage.key.model

    @property
    def version(self) -> str:
        return self.stage.key.version

    @property
    def platform(self) -> str:
        return self.config.platform or self.config.backend

    @cached_property
    def stages(self) -> tuple[Stage, ...]:  # type: ignore[override]
        return (self.stage,)

    @cached_property
    def default_budget_ms(self) -> float:
        policy = self.config.dynamic_batching.default_queue_policy
        return policy.default_timeout_microseconds / 1e3 or _BUDGET_MS

    @cached_property
    def priorities(self) -> Priorities:
        return priorities_of(self.config)

    @property
    def takes(self) -> tuple[Told, ...]:
        return tuple(self._told(slot) for slot in self.stage.takes)

    @property
    def gives(self) -> tuple[Told, ...]:
        return tuple(self._told(slot) for slot in self.stage.gives)

    @property
    def by_contract(self) -> Mapping[bytes, Stage]:
        return {}

    @property
    def batches(self) -> bool:
        return self.config.max_batch_size > 0

    def wanted(self, requested: Sequence[RequestedOutput]) -> tuple[str, ...]:
        return wanted_outputs(requested, own=(), specs=self.stage.gives)

    def answered(self, answer: Answer, *, wanted: Iterable[str]) -> dict[str, Array]:
        made = answer.outputs
        return sendable({name: made[name] if self.batches else made[name][0] for name in wanted})

    def read(self, sent: Iterable[InputTensor]) -> tuple[Array, Tensors]:
        """The first input and the others, [items, ...] each; TensorError unless all fit."""
        by_name: dict[str, Array] = {}
        slots = {slot.name: slot for slot in self.stage.takes}
        for tensor in sent:
            slot = slots.get(tensor.name)
            if slot is None or tensor.name in by_name:
                word = "is unknown" if slot is None else "came twice"
                raise TensorError(f"input {tensor.name!r} {word}; {self._takes()}")
            by_name[tensor.name] = self._read(tensor, slot)
        missing = [name for name in slots if name not in by_name]
        if missing:
            raise TensorError(f"input {missing[0]!r} is missing; {self._takes()}")
        first, *others = (by_name[name] for name in slots)
        if any(len(other) != len(first) for other in others):
            raise TensorError(f"the inputs are of {[len(each) for each in by_name.values()]} items")
        return first, {slot.name: by_name[slot.name] for slot in self.stage.takes[1:]}

    def _read(self, tensor: InputTensor, slot: Slot) -> Array:
        most = self.stage.max_batch
        shape = tensor.shape[1:] if self.batches else tensor.shape
        items = tensor.shape[0] if self.batches and tensor.shape else 1
        if tensor.datatype != slot.datatype or not slot.fits(shape) or not 1 <= items <= most:
            among = f" behind 1 to {most} items" if self.batches else ""
            raise TensorError(f"{tensor.datatype} {list(tensor.shape)} does not fit {slot}{among}")
        array = tensor.view()
        return array if self.batches else array[None]

    def _takes(self) -> str:
        return f"{self.name} takes {', '.join(map(str, self.stage.takes))}"

    def _told(self, slot: Slot) -> Told:
        return Told(slot.name, slot.datatype, (-1, *slot.dims) if self.batches else slot.dims)


def _most_items(takes: Iterable[Slot]) -> int:
    """More do not come in one message."""
    return MAX_MESSAGE_BYTES // max(1, sum(slot.zeros(1).nbytes for slot in takes))


def named_stage(
    key: StageKey,
    config: pb.ModelConfig,
    *,
    takes: tuple[Slot, ...],
    gives: tuple[Slot, ...],
    most_together: int,
    opening: Opening,
    own_bytes: int = 0,
) -> NamedStage:
    """The one stage of a model as its configuration wants it batched.

    Without `dynamic_batching` requests are not put together, nor where sizes vary from one to the
    next; with it, at most as many as the largest preferred size, or `most_together`.
    """
    first, batches = takes[0], config.max_batch_size > 0
    dynamic = batches and config.HasField("dynamic_batching")
    preferred = max(config.dynamic_batching.preferred_batch_size, default=most_together)
    together = min(preferred, config.max_batch_size)
    alone = not dynamic or any(slot.varies for slot in (*takes, *gives))
    shape = tuple(max(size, 1) for size in first.dims) or (1,)
    return NamedStage(
        key=key,
        contract=Contract(tensor=first.name, shape=shape, dtype=first.datatype, model=str(key)),
        max_batch=max(1, min(config.max_batch_size, _most_items(takes))),
        own_bytes=own_bytes,
        open=partial(
            _backend,
            opening,
            first=first.name,
            outputs=[slot.name for slot in gives],
            batches=batches,
        ),
        takes=takes,
        gives=gives,
        together=1 if alone else together,
        linger_ms=config.dynamic_batching.max_queue_delay_microseconds / 1e3,
    )

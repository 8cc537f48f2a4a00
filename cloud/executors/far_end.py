"""What stands at the other end: stages of its own, and batches that are carried out on them."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from ...shared.contract import Contract
from ...shared.deadline import Clock, monotonic
from ...shared.errors import HybridgeError
from ...shared.side import Tensors
from ..cost import Cost
from ..job import Job
from ..stage import Stage
from ..work import Answer, Errand, Execution, Load, Work, execute
from .parcel import Parcel, Place, pack, unpack


@dataclass(frozen=True, slots=True)
class Open:
    """Load a stage, try it and measure it; answered with its Cost."""

    place: Place
    stage: bytes


@dataclass(frozen=True, slots=True)
class LetGo:
    """Forget a stage."""

    place: Place


@dataclass(frozen=True, slots=True)
class Echo:
    """Give this back empty: how long the way takes."""

    payload: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A work without its waiter; times are relative, since clocks differ between machines."""

    items: int
    load: Load = field(repr=False)
    sides: Tensors = field(repr=False)
    waited_ms: float
    left_ms: float


@dataclass(frozen=True, slots=True)
class Execute:
    """Carry out a batch; answered with an Execution."""

    place: Place
    works: tuple[Sent, ...]


Order = Open | LetGo | Echo | Execute
Told = Cost | Execution | HybridgeError | None


def send(works: Sequence[Work], *, stage: Stage, place: Place, now_s: float) -> Parcel:
    """The order to carry out a batch, as a parcel."""
    sent = tuple(
        Sent(
            items=work.job.items,
            load=work.load,
            sides=work.sides,
            waited_ms=(now_s - work.job.arrived_s) * 1e3,
            left_ms=(work.job.deadline_s - now_s) * 1e3 if not work.unwanted else 0.0,
        )
        for work in works
    )
    return pack(Execute(place, sent), known=stage.contract, place=place)


class FarEnd:
    """Obeys orders; may be called from several threads."""

    def __init__(self, *, clock: Clock = monotonic) -> None:
        self._stages: dict[Place, Stage] = {}
        self._clock = clock

    def obey(self, parcel: Parcel) -> Parcel:
        """What an order leads to, faults of the model and the bundle among it; raises defects."""
        try:
            return pack(self._obey(unpack(parcel, look_up=self._contract)))
        except HybridgeError as error:
            return pack(error)

    def _obey(self, order: Order) -> Told:
        match order:
            case Execute():
                return self._execute(order)
            case Open():
                stage: Stage = pickle.loads(order.stage)  # noqa: S301 - our own cloud's
                stage.load()
                self._stages[order.place] = stage
                return stage.cost
            case LetGo():
                self._stages.pop(order.place, None)
                return None
            case Echo():
                return None

    def _contract(self, place: Place) -> Contract:
        return self._stages[place].contract

    def _execute(self, order: Execute) -> Execution:
        stage, now_s = self._stages[order.place], self._clock()
        works = [
            Errand(
                job=Job(
                    id=at,
                    stage=stage.key,
                    items=sent.items,
                    arrived_s=now_s - sent.waited_ms / 1e3,
                    deadline_s=now_s + sent.left_ms / 1e3,
                ),
                load=sent.load,
                sides=sent.sides,
            )
            for at, sent in enumerate(order.works)
        ]
        execution = execute(works, stage=stage, clock=self._clock)
        outcomes = tuple(_portable(each) for each in execution.outcomes)
        return msgspec.structs.replace(execution, outcomes=outcomes)


def _portable(outcome: Answer | Exception | None) -> Answer | Exception | None:
    """Faults of our own travel as they are; of others who knows whether they can be pickled."""
    if isinstance(outcome, Exception) and not isinstance(outcome, HybridgeError):
        return HybridgeError(f"{type(outcome).__name__}: {outcome}")
    return outcome

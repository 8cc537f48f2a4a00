"""What carries out the batches that the scheduler forms, wherever that is."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..cost import Cost
from ..scheduler import Capacity
from ..stage import Stage
from ..work import Execution, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What requests need: `unanswered` were accepted, `refused` were not, for time or room."""

    unanswered: int
    refused: int
    """Since the start."""
    forecast_ms: float
    """How long a request that came now would wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staff:
    """Those beneath a cloud: how many compute, are being started, and have died.

    `processes` are those of this machine, by name.
    """

    ready: int
    starting: int
    deaths: int
    processes: Mapping[str, int]


class Executor(Protocol):
    """Runs batches beside each other. All methods belong to one event loop.

    A batch is never sent to more than one place, and there is no calling it back: a runtime that
    computes cannot be interrupted. What nobody wants any more is left out before it starts.
    """

    here: bool
    """Whether it runs the very stages that are loaded here, so that opening one takes no time."""

    @property
    def capacity(self) -> Capacity:
        """How many batches it takes at a time, now and soon."""

    @property
    def staff(self) -> Staff | None:
        """Who computes for it elsewhere, if anybody does."""

    async def start(self, *, demand: Callable[[], Demand], changed: Callable[[], None]) -> None:
        """Gets ready; calls `changed` from now on when `capacity` is another."""

    async def open(self, stage: Stage) -> Cost:
        """Gets ready to run a stage that is loaded here; what that costs, the way there included.

        Whatever keeps it from being loaded is raised.
        """

    async def let_go(self, stage: Stage) -> None:
        """Forgets a stage for which no more work comes; what runs for nobody may still run."""

    def at_once(self, stage: Stage, items: int) -> bool:
        """Whether a run is so short that it is better computed on the loop.

        If its input needs no making.
        """
        return False

    def run(self, works: Sequence[Work], stage: Stage) -> asyncio.Future[Execution]:
        """Carries out a batch; InstanceLost if what computed it died."""

    async def close(self) -> None:
        """Takes no more work, and lets go of everything."""

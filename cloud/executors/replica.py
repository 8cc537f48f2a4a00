"""One replica beneath a cloud, as seen from here."""

from abc import ABC, abstractmethod

from .parcel import Parcel


class ReplicaLost(Exception):
    """A replica ended, or cannot be reached, and with it whatever it was doing."""


class Replica(ABC):
    """Something that obeys orders elsewhere (far_end.py). Belongs to one event loop."""

    name: str

    @property
    def pid(self) -> int | None:
        """Its process, if that is one of this machine."""
        return None

    @abstractmethod
    async def start(self) -> None:
        """Begins to live; ReplicaLost if it does not."""

    @abstractmethod
    async def call(self, order: Parcel) -> Parcel:
        """Has an order obeyed; ReplicaLost if that cannot be known any more.

        As many orders at a time as there are slots, and one more.
        """

    @abstractmethod
    async def ended(self) -> str:
        """Returns once it lives no more, with the reason."""

    @abstractmethod
    async def stop(self, *, at_once: bool = False) -> None:
        """Ends it; at once means in the middle of whatever it does."""

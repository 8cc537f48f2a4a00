"""Messages that are on their way here: how many may take as long as they like.

gRPC keeps what has come of a message until all of it is there, tells nobody how much that is, and
cannot end a call that waits for one unless it is received as a stream is, which costs a fifth more
processor time. So the first to come are received as they are, as many as there is memory for if all
of them are as large as can be; the others are given a while each. All methods belong to one event
loop.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from .errors import Overloaded

_T = TypeVar("_T")


class Receiving:
    """So many `places` for messages that may take long; all others have `patience_s`."""

    def __init__(
        self,
        *,
        places: int,
        patience_s: float,
        on_refusal: Callable[[Overloaded], object] | None = None,
    ) -> None:
        self._places = places
        self._patience_s = patience_s
        self._on_refusal = on_refusal
        self._coming: set[object] = set()

    def begin(self, message: object) -> bool:
        """Takes a place for a message if there is one."""
        if len(self._coming) >= self._places:
            return False
        self._coming.add(message)
        return True

    def end(self, message: object) -> None:
        """It has come, or never will."""
        self._coming.discard(message)

    async def next(self, messages: AsyncIterator[_T]) -> _T:
        """The next one, as it is or within the time for it; Overloaded if it has not come then."""
        if self.begin(messages):
            try:
                return await anext(messages)
            finally:
                self.end(messages)
        return await self.soon(messages)

    async def soon(self, messages: AsyncIterator[_T]) -> _T:
        """The next one within the time for it; Overloaded if it has not come then."""
        try:
            async with asyncio.timeout(self._patience_s):
                return await anext(messages)
        except TimeoutError:
            fault = Overloaded(
                f"no whole message came within {self._patience_s:g} s, and "
                f"{self._places} others that take long are waited for already"
            )
        if self._on_refusal is not None:
            self._on_refusal(fault)
        raise fault

"""Requests on their way through, so that what they may use is kept until they are out.

A model is taken out of the repository first; then whoever looked before that is waited for, and
only then is it unloaded (read-copy-update: McKenney and Slingwine, 1998). A request pays two
additions. All methods belong to one event loop.
"""

import asyncio
from types import TracebackType


class Passage:
    """The requests with one model that are under way, each within a `with` block."""

    __slots__ = ("gone", "inside")

    def __init__(self) -> None:
        self.inside = 0
        self.gone: asyncio.Event | None = None

    def __enter__(self) -> None:
        self.inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.inside -= 1
        if self.gone is not None and not self.inside:
            self.gone.set()


class Passages:
    """The requests under way, by the names of their models."""

    def __init__(self) -> None:
        self._now: dict[str, Passage] = {}

    def through(self, name: str) -> Passage:
        """What holds up `cleared` from now on, if it is entered at once and `cleared` called later.

        Only for models there are, or were: names are kept.
        """
        passage = self._now.get(name)
        if passage is None:
            passage = self._now[name] = Passage()
        return passage

    async def cleared(self, name: str) -> None:
        """Returns once all that are on their way now have come out; later ones are not awaited."""
        passage = self._now.pop(name, None)
        if passage is not None and passage.inside:
            passage.gone = asyncio.Event()
            await passage.gone.wait()

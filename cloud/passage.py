"""Requests on their way through, so that what they may use is kept until they are out.

A model is taken out of the repository first; then whoever looked before that is waited for, and
only then is it unloaded (read-copy-update: McKenney and Slingwine, 1998). A request pays two
additions. All methods belong to one event loop.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Passages:
    """Counts the requests on their way, by a name."""

    def __init__(self) -> None:
        self._now: dict[str, _Crowd] = {}

    @contextmanager
    def through(self, name: str) -> Iterator[None]:
        """Holds up `cleared` while the block runs, if that is called within it."""
        crowd = self._now.get(name)
        if crowd is None:
            crowd = self._now[name] = _Crowd()
        crowd.inside += 1
        try:
            yield
        finally:
            crowd.inside -= 1
            if not crowd.inside:
                crowd.gone.set()
                if self._now.get(name) is crowd:
                    del self._now[name]

    async def cleared(self, name: str) -> None:
        """Returns once all that are on their way now have come out; later ones are not awaited."""
        if crowd := self._now.pop(name, None):
            await crowd.gone.wait()


class _Crowd:
    __slots__ = ("gone", "inside")

    def __init__(self) -> None:
        self.inside = 0
        self.gone = asyncio.Event()

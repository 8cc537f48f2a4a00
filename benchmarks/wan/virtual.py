"""An event loop whose clock is a number: it jumps to the next thing that happens.

Everything asyncio knows runs on it unchanged, timeouts and sleeps included, as fast as the
processor allows: an hour in which nothing happens takes no time.
"""

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class _NoSelector(selectors.BaseSelector):
    """Watches no files: where a real one would wait, time passes."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing will happen any more")
        self.now_s += max(timeout, 0.0)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, -1, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, -1, 0, None)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time begins at 1,000 s, so that nothing mistakes it for "never"."""

    def __init__(self) -> None:
        self._no_selector = _NoSelector()
        self._no_selector.now_s = 1_000.0
        super().__init__(self._no_selector)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._no_selector.now_s


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in virtual time."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

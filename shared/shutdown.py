"""SIGINT and SIGTERM for daemons: the first asks, the second forces."""

import asyncio
import os
import signal
from types import FrameType, TracebackType
from typing import Any

FORCED_EXIT_CODE = 130
"""128 + SIGINT, as shells report it."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Catches the signals within a `with` block on the main thread and restores what was there."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        self._loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    async def wait(self) -> None:
        """Until the first signal."""
        await self._asked.wait()

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self._asked.is_set():
            os._exit(FORCED_EXIT_CODE)
        self._asked.set()
        # The handler runs between two bytecodes of the main thread: the loop may be asleep.
        self._loop.call_soon_threadsafe(lambda: None)

"""How a daemon lives: it starts, serves until SIGINT or SIGTERM, and ends what it has begun.

The first signal asks, the second ends the process at once with 128 + its number, as shells report
it. A daemon that was asked to stop exits with 0.
"""

import asyncio
import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from .security import Address

log = logging.getLogger(__name__)

OnListening = Callable[[Address], None]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Daemon(Protocol):
    """Something that serves on a port. `shutdown` may be called after a failed `startup`."""

    async def startup(self, *, on_listening: OnListening | None = None) -> None:
        """Opens the port, tells it, and gets ready."""

    async def shutdown(self) -> None:
        """Takes nothing new, finishes what was accepted, closes everything."""


async def serve(daemon: Daemon, *, on_listening: OnListening | None = None) -> None:
    """Runs a daemon until a signal; raises what its startup raises."""
    with Interrupts() as interrupts:
        starting = asyncio.ensure_future(daemon.startup(on_listening=on_listening))
        asked = asyncio.ensure_future(interrupts.wait())
        try:
            await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                keep_what_is_there()
            await asked
        finally:
            starting.cancel()
            asked.cancel()
            await daemon.shutdown()


def keep_what_is_there() -> None:
    """Takes what has been loaded out of garbage collection: it stays, and looking at it takes time.

    A full collection visits all of some 46,000 objects, for which a small board needs as long as
    for a request.
    """
    gc.collect()
    gc.freeze()


class Interrupts:
    """Catches the signals within a `with` block on an event loop, and restores what was there.

    Outside the main thread, which alone gets signals, it does nothing.
    """

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        self._loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.getsignal(number)
                self._loop.add_signal_handler(number, self._caught, number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            self._loop.remove_signal_handler(number)
            signal.signal(number, handler)

    async def wait(self) -> None:
        """Until the first signal."""
        await self._asked.wait()

    def _caught(self, number: signal.Signals) -> None:
        if self._asked.is_set():
            log.warning("%s again: leaving at once", number.name)
            logging.shutdown()
            os._exit(128 + number)
        log.info("%s: stopping; once more to leave at once", number.name)
        self._asked.set()

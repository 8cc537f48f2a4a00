"""A daemon on an event loop of its own, for tests of what blocks."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from hybridge.shared.daemon import Daemon
from hybridge.shared.security import Address


@contextlib.contextmanager
def serving(daemon: Daemon) -> Iterator[Address]:
    """Runs a daemon in a thread while the block runs; raises what its startup raised."""
    listening = threading.Event()
    found: list[Address] = []
    faults: list[BaseException] = []

    async def run() -> None:
        try:
            await daemon.startup(on_listening=found.append)
            listening.set()
            await stop.wait()
        finally:
            await daemon.shutdown()

    def work() -> None:
        try:
            with asyncio.Runner() as runner:
                loops.append(runner.get_loop())
                runner.run(run())
        except BaseException as error:
            faults.append(error)
        finally:
            listening.set()

    stop, loops = asyncio.Event(), list[asyncio.AbstractEventLoop]()
    thread = threading.Thread(target=work, name="daemon")
    thread.start()
    assert listening.wait(60)
    try:
        if faults:
            raise faults[0]
        yield found[0]
    finally:
        if not faults:
            loops[0].call_soon_threadsafe(stop.set)
        thread.join(60)
    assert faults == []

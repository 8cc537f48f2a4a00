"""A slow link on loopback: a TCP relay that paces and delays what passes, both ways.

Bytes leave in the order they came, no sooner than the bottleneck allows and one-way delay later. It
stands for a link well enough to watch the router; figures about networks come from an emulator that
carries real packets.
"""

import asyncio
import contextlib
import threading
import time
from dataclasses import dataclass

from ...shared.security import Address

_CHUNK_BYTES = 4096
_STARTED_S = 10.0


@dataclass(frozen=True)
class Link:
    """A link's round trip and its throughput each way."""

    name: str
    rtt_ms: float
    mbps: float


class _Direction:
    """One way through the bottleneck, shared by all connections."""

    def __init__(self) -> None:
        self._free_s = 0.0

    def leaves_s(self, size_bytes: int, link: Link, now_s: float) -> float:
        """When bytes that came now have passed the bottleneck."""
        self._free_s = max(self._free_s, now_s) + size_bytes * 8e-6 / link.mbps
        return self._free_s


class Relay:
    """Listens on a free loopback port and forwards to `target`; `link` may change at any time.

    Runs an event loop of its own in a thread, between `start` and `stop`.
    """

    def __init__(self, target: Address, link: Link) -> None:
        self.link = link
        self._target = target
        self._up, self._down = _Direction(), _Direction()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def start(self) -> Address:
        """The address to connect to."""
        self._thread.start()
        if not self._started.wait(_STARTED_S):
            raise TimeoutError("the relay did not start")
        return self._address

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self._address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        self._tasks: set[asyncio.Task[None]] = set()
        self._started.set()
        await self._stopping.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            there, back = await asyncio.open_connection(self._target.host, self._target.port)
        except OSError:
            writer.close()  # the target is gone: so is this connection
            return
        finally:
            self._tasks.discard(task)
        both = (self._pump(reader, back, self._up), self._pump(there, writer, self._down))
        pumps = [asyncio.ensure_future(pump) for pump in both]
        self._tasks.update(pumps)
        for pump in pumps:
            pump.add_done_callback(self._tasks.discard)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Direction
    ) -> None:
        arrivals: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        deliver = asyncio.create_task(self._deliver(arrivals, writer))
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                now_s = time.monotonic()
                leaves_s = way.leaves_s(len(chunk), self.link, now_s)
                arrivals.put_nowait((leaves_s + self.link.rtt_ms / 2e3, chunk))
                # What has not passed the bottleneck yet stays with the sender.
                await asyncio.sleep(max(0.0, leaves_s - time.monotonic()))
        except ConnectionError:
            pass  # one side broke off; the other is told by closing
        finally:
            arrivals.put_nowait((0.0, b""))
            with contextlib.suppress(ConnectionError):
                await deliver

    async def _deliver(
        self, arrivals: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter
    ) -> None:
        try:
            while True:
                at_s, chunk = await arrivals.get()
                if not chunk:
                    return
                await asyncio.sleep(max(0.0, at_s - time.monotonic()))
                writer.write(chunk)
                await writer.drain()
        finally:
            writer.close()

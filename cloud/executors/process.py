"""A replica in a process of its own on this machine.

Started afresh, never forked: gRPC and model runtimes have threads. It ends when its sockets do, so
none outlives the cloud, however that ends.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .arena import HEAD, Arena, Note, owned
from .far_end import Echo
from .parcel import Parcel, pack
from .replica import Replica, ReplicaLost

_MODULE = "hybridge.cloud.executors.process_main"
COMMAND = (sys.executable, "-m", _MODULE)
_START_MOST_S = 120.0
_STOP_MOST_S = 5.0
_COPY_ON_LOOP_BYTES = 1 << 20
"""So much takes about a quarter of a millisecond; more is left to a thread."""


@dataclass(frozen=True, slots=True)
class _Channel:
    """One order at a time: a socket and the memory beside it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    arena: Arena

    async def call(self, order: Parcel) -> Parcel:
        if order.bytes > _COPY_ON_LOOP_BYTES:
            note = await asyncio.to_thread(self.arena.write, order)
        else:
            note = self.arena.write(order)
        self.writer.write(note)
        await self.writer.drain()
        told = Note.read(await self.reader.readexactly(HEAD.size))
        parcel, _ = self.arena.read(told, await self.reader.readexactly(told.rest_bytes))
        return owned(parcel)

    def close(self) -> None:
        self.writer.close()


class ProcessReplica(Replica):
    """Runs `slots` batches at a time; `command` is what starts it, the descriptors behind it."""

    def __init__(self, name: str, *, slots: int, command: Sequence[str] = COMMAND) -> None:
        self.name = name
        self._slots = slots
        self._command = tuple(command)
        self._channels: list[_Channel] = []
        self._free: asyncio.Queue[_Channel] = asyncio.Queue()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> None:
        descriptors: list[int] = []
        far: list[socket.socket] = []
        try:
            for _ in range(self._slots + 1):
                near, theirs = socket.socketpair()
                far.append(theirs)
                reader, writer = await asyncio.open_connection(sock=near)
                channel = _Channel(reader, writer, Arena.create())
                self._channels.append(channel)
                self._free.put_nowait(channel)
                descriptors += [theirs.fileno(), channel.arena.file]
            self._process = await asyncio.create_subprocess_exec(
                *self._command, *map(str, descriptors),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=descriptors,
                start_new_session=True,  # an interrupt at the terminal is the cloud's to handle
                env=_environment(),
            )  # fmt: skip
        except OSError as error:
            raise ReplicaLost(f"it cannot be started: {error}") from error
        finally:
            for each in far:
                each.close()
        try:
            async with asyncio.timeout(_START_MOST_S):
                await self.call(pack(Echo(np.empty(0, np.uint8))))
        except TimeoutError:
            raise ReplicaLost(f"it said nothing within {_START_MOST_S:g} s") from None

    async def call(self, order: Parcel) -> Parcel:
        channel = await self._free.get()
        try:
            told = await channel.call(order)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise ReplicaLost(await self.ended()) from error
        except BaseException:  # its answer is still to come, and must not be taken for the next
            await self.stop(at_once=True)
            raise
        self._free.put_nowait(channel)
        return told

    async def ended(self) -> str:
        assert self._process is not None
        code = await self._process.wait()
        if code >= 0:
            return f"it ended with exit code {code}"
        with contextlib.suppress(ValueError):
            return f"it was ended by {signal.Signals(-code).name}"
        return f"it was ended by signal {-code}"

    async def stop(self, *, at_once: bool = False) -> None:
        process = self._process
        if process is not None and process.returncode is None and at_once:
            _kill(process)
        channels, self._channels = self._channels, []
        for channel in channels:
            channel.close()
        if process is None:
            return
        try:
            async with asyncio.timeout(_STOP_MOST_S):
                await process.wait()
        except TimeoutError:
            _kill(process)
            await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _environment() -> dict[str, str]:
    """The same package, whichever way this process came by it."""
    root = Path(__file__).parents[3]
    paths = [str(root)] if (root / "hybridge").is_dir() else []
    paths += [path for path in sys.path if path and path not in paths]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

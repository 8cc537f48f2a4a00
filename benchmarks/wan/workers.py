"""Processes that obey: an order a line on stdin, an answer a line on stdout, as JSON."""

import asyncio
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from hybridge.shared.errors import RemoteRefused, RemoteTooLate, RemoteUnavailable

Message = dict[str, Any]

START_S = 120.0
_STOP_S = 10.0
_NICE = -15
_PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")


def reply(message: Message) -> None:
    """What a worker answers."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def orders() -> AsyncIterator[Message]:
    """What a worker on an event loop is told, until its stdin ends."""
    reader = asyncio.StreamReader(limit=1 << 26)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


def take_precedence(*, rank: int) -> None:
    """Puts this process, and threads to come, before all of a lower rank; 0 is anybody's.

    What stands for the world outside the system, a link or its users, waits for no processor.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(rank))
    except PermissionError:  # a cgroup without a share of real time
        os.nice(_NICE)


def environment() -> dict[str, str]:
    """This process' own, but no proxy stands between the namespaces."""
    kept = {name: value for name, value in os.environ.items() if name.lower() not in _PROXIES}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def script(name: str) -> list[str]:
    """The command of a worker that lies in this folder."""
    return [sys.executable, str(Path(__file__).with_name(f"{name}.py"))]


class Worker:
    """One such process, its log in a file, gone when the block ends.

    Its first line says that it is ready.
    """

    def __init__(self, name: str, command: Sequence[str], *, log: Path) -> None:
        self.name = name
        self._command = list(command)
        self._log = log
        self.started: Message = {}

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(),
                start_new_session=True,  # Ctrl-C is for the laboratory, which ends them itself
            )
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        assert self._process.stdout is not None
        reading = (self._process.stdout, self._lines)
        self._reader = threading.Thread(target=_read, args=reading, daemon=True)
        self._reader.start()
        try:
            self.started = self._answer(START_S)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # a worker ends with its orders
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """Ends the process at once, as a power cut would."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def ask(self, message: Message, *, within_s: float = 30.0) -> Message:
        """Sends an order and waits for its answer; RemoteError if it failed or none comes."""
        self.tell(message)
        return self._answer(within_s)

    def tell(self, message: Message) -> None:
        """Sends an order whose answer `hear` collects."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise RemoteUnavailable(f"{self.name} has ended; {self._tail()}") from error

    def hear(self, *, within_s: float) -> Message:
        return self._answer(within_s)

    def _answer(self, within_s: float) -> Message:
        try:
            line = self._lines.get(timeout=within_s)
        except queue.Empty:
            raise RemoteTooLate(
                f"{self.name} is silent for {within_s:g} s; {self._tail()}"
            ) from None
        if not line:
            raise RemoteUnavailable(f"{self.name} has ended; {self._tail()}")
        message: Message = json.loads(line)
        if "error" in message:
            raise RemoteRefused(f"{self.name}: {message['error']}")
        return message

    def _tail(self) -> str:
        return (
            f"its log {self._log} ends with: {self._log.read_text(errors='replace')[-600:].strip()}"
        )


def _read(stream: IO[bytes], lines: "queue.SimpleQueue[bytes]") -> None:
    """Drains a pipe to its end; then an empty line."""
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(b"")

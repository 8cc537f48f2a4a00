"""The demo's cloud and edge: separate processes, as they would be in the field."""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from ...shared.errors import RemoteUnavailable
from ...shared.security import Address

_LISTENING = re.compile(r"listening on (\S+)")
_START_S = 60.0
_STOP_S = 15.0


class Daemon:
    """One `hybridge cloud` or `hybridge edge`, its log in a file, ended when the block ends.

    `prefix` is a command that runs another one, such as in a namespace.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], *, log: Path, prefix: Sequence[str] = ()
    ) -> None:
        self.name = name
        self._prefix = prefix
        self._arguments = arguments
        self._log = log

    def __enter__(self) -> "Daemon":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", "hybridge", self.name, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        assert self._process.stdout is not None
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        reading = (self._process.stdout, lines)
        self._reader = threading.Thread(target=_read, args=reading, daemon=True)
        self._reader.start()
        self.address = self._wait_for_address(lines)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._reader.join()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """Ends the process at once, as a power cut would."""
        self._process.kill()
        self._process.wait()

    def _wait_for_address(self, lines: "queue.SimpleQueue[str]") -> Address:
        try:
            while line := lines.get(timeout=_START_S):
                if match := _LISTENING.search(line):
                    return Address.parse(match[1])
        except queue.Empty:
            self.kill()
        raise RemoteUnavailable(
            f"hybridge {self.name} did not start; its log {self._log} ends with: {self._tail()}"
        )

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-400:].strip()


def _read(stream: IO[bytes], lines: "queue.SimpleQueue[str]") -> None:
    """Drains a pipe to its end, so that the process never blocks on it; then an empty line."""
    with stream:
        for line in stream:
            lines.put(line.decode(errors="replace"))
    lines.put("")

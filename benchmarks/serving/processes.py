"""Servers as processes of their own: started, watched through /proc, paused, ended."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from hybridge.shared.errors import ConfigError
from hybridge.shared.security import Address

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_START_S, _END_S = 180.0, 20.0


class ServerProcess:
    """A process that has printed a line ending in its port or HOST:PORT, and what it started."""

    def __init__(self, process: "subprocess.Popen[str]", address: Address) -> None:
        self._process = process
        self.address = address
        self.pid = process.pid

    @property
    def cpu_s(self) -> float:
        """Processor time of the process and of everything below it."""
        return sum(_cpu_s(pid) for pid in self._tree())

    @property
    def resident_bytes(self) -> int:
        """Of the process itself."""
        return int(_read(self.pid, "statm").split()[1]) * _PAGE_BYTES

    @property
    def files(self) -> int:
        """Open file descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208

    @property
    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))  # noqa: PTH208

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stands still, so that it costs nobody a cycle."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """Asks, then insists."""
        self.resume()
        tree = self._tree()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        for pid in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._tree():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _tree(self) -> list[int]:
        """The process and its descendants, as they are now."""
        parents = {int(name): _parent(int(name)) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208
        tree = [self.pid]
        for pid in tree:
            tree += [child for child, parent in parents.items() if parent == pid]
        return tree


@contextlib.contextmanager
def server(command: Sequence[str | Path], *, log: Path | None = None) -> Iterator[ServerProcess]:
    """Runs a server until the block ends; ConfigError if it ends before it says its address."""
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(log.open("w")) if log else None
        process = stack.enter_context(
            subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        )
        try:
            address = _address(process)
        except ConfigError:
            process.kill()
            raise
        running = ServerProcess(process, address)
        try:
            yield running
        finally:
            running.end()


@contextlib.contextmanager
def cloud(bundles: Path, *options: str, log: Path | None = None) -> Iterator[ServerProcess]:
    """A `hybridge cloud` over a folder of bundles, on a port that the system chooses."""
    command = [sys.executable, "-m", "hybridge", "cloud", "--listen", "127.0.0.1:0"]
    with server([*command, "--bundles", bundles, *options], log=log) as running:
        yield running


def _address(process: "subprocess.Popen[str]") -> Address:
    """From the first line whose last word is a port; what is printed later is read and dropped."""
    found: queue.SimpleQueue[Address | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            words = line.split()
            host, _, port = (words[-1] if words else "").rpartition(":")
            if port.isdecimal():
                found.put(Address(host or "127.0.0.1", int(port)))
        found.put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        address = found.get(timeout=_START_S)
    except queue.Empty:
        address = None
    if address is None:
        raise ConfigError(f"{process.args!r} did not start")
    return address


def _read(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, which may hold anything."""
    try:
        return _read(pid, "stat").rpartition(")")[2].split()
    except OSError:  # it has ended
        return []


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return sum(map(int, fields[11:13])) / _TICKS if fields else 0.0

"""Cases tried in a process of their own, which one that takes too long ends alone."""

import itertools
import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

LIMIT_S = 1.0
"""Of processor time. Honest frames of these sizes take milliseconds, on any machine."""
MORE_BYTES = 64 << 20
"""What one case may make the process grow by: libraries' own memory too."""


class Try(NamedTuple):
    """A case's name, its bytes, and what says how it went."""

    name: str
    frame: bytes
    outcome: Callable[[], str]


@dataclass(frozen=True)
class Done:
    """What came of a case, and how much processor time it took."""

    name: str
    frame: bytes
    said: str
    took_s: float


Cases = Callable[[random.Random], Iterator[Try]]


def tried(cases: Cases, seed: int, *, limit_s: float = LIMIT_S) -> Generator[Done, None, None]:
    """Without end; a case that ends its process is told, and a new process goes on with others."""
    context = multiprocessing.get_context("spawn")
    for life in itertools.count():
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_try_all, args=(cases, f"{seed}-{life}", limit_s, theirs))
        process.start()
        theirs.close()
        name, frame = "", b""
        try:
            while True:
                name, frame = ours.recv()
                yield Done(name, frame, *ours.recv())
        except EOFError:
            process.join()
            if not name:
                raise
            slow = process.exitcode == -signal.SIGPROF
            said = f"more than {limit_s:g} s" if slow else f"ended its process: {process.exitcode}"
            yield Done(name, frame, said, limit_s)
        finally:
            process.kill()
            process.join()


def _try_all(cases: Cases, seed: str, limit_s: float, results: Connection) -> None:
    """The kernel ends a process whose time is over, whatever holds it."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for name, frame, outcome in cases(random.Random(seed)):
        before = _most_memory()
        results.send((name, frame))
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        start = time.process_time()
        said = outcome()
        took_s = time.process_time() - start
        signal.setitimer(signal.ITIMER_PROF, 0)
        if (more := _most_memory() - before) > MORE_BYTES:
            said = f"{more} bytes of memory"
        results.send((said, took_s))


def _most_memory() -> int:
    """Of this program: getrusage has what the parent had too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10

"""Cores for a server, and one for whoever asks it.

A client that has to share them takes from the server what it spends on asking, and sees its own
lateness as the server's.
"""

import contextlib
import os
from collections.abc import Iterator, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

_Running = TypeVar("_Running")


@dataclass(frozen=True)
class Cores:
    """Those of this machine, shared out; where there is only one, both have it."""

    server: Set[int]
    client: Set[int]

    @classmethod
    def shared_out(cls) -> "Cores":
        *others, last = sorted(os.sched_getaffinity(0))
        return cls(frozenset(others) or frozenset((last,)), frozenset((last,)))


@contextlib.contextmanager
def kept_to(cores: Set[int]) -> Iterator[None]:
    """All threads of this process run there until the block ends; what it starts stays there."""
    before = os.sched_getaffinity(0)
    _move(cores)
    try:
        yield
    finally:
        _move(before)


@contextlib.contextmanager
def started_on(cores: Set[int], starting: AbstractContextManager[_Running]) -> Iterator[_Running]:
    """What starts there, and stays."""
    with contextlib.ExitStack() as stack:
        with kept_to(cores):
            running = stack.enter_context(starting)
        yield running


def _move(cores: Set[int]) -> None:
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(thread), cores)

"""Ends a run that goes on although nobody waits for it any more."""

import mmap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime

from ..shared.deadline import monotonic
from ..shared.errors import DeadlineUnmet
from ..shared.tensor import Array
from .audience import audience

_LOOPS = (b"Loop", b"Scan")
"""ONNX operators that can go on and on: how often they turn may be said by an input."""


def may_loop(graph: bytes | mmap.mmap) -> bool:
    """Whether a graph has such an operator.

    Without a look at every node: an operator's name stands in the bytes as it is.
    """
    return any(graph.find(word) >= 0 for word in _LOOPS)


def file_may_loop(file: Path) -> bool:
    """The same of a graph in a file."""
    with (
        file.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return may_loop(content)


def run_leashed(
    session: onnxruntime.InferenceSession, outputs: list[str], fed: dict[str, Array]
) -> list[Array]:
    """Outputs of a session; DeadlineUnmet if it was ended, which takes until its next node."""
    options = onnxruntime.RunOptions()
    with _leash(lambda: setattr(options, "terminate", True)):
        try:
            made: list[Array] = session.run(outputs, fed, options)
        except Exception:  # the runtime's own class for it is that of many faults
            if options.terminate:
                raise DeadlineUnmet("its run was ended, since nobody waits any more") from None
            raise
    return made


@contextmanager
def _leash(end: Callable[[], object]) -> Iterator[None]:
    """Calls `end` from elsewhere once all who wait have left, or at the last of their deadlines."""
    waiting = audience()
    if waiting is None:  # it is being tried
        yield
        return
    waiting.when_gone(end)
    timer = threading.Timer(max(0.0, waiting.deadline_s - monotonic()), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()

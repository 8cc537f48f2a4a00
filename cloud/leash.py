"""Ends a run that goes on although nobody waits for it any more."""

import mmap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime

from ..shared.deadline import monotonic
from ..shared.errors import DeadlineUnmet, ModelFault
from ..shared.tensor import Array
from .audience import Audience, audience

_LOOPS = (b"Loop", b"Scan")
"""ONNX operators that can go on and on: how often they turn may be said by an input."""

_TRY_S = 60.0
"""For a run of zeros, with which a model is tried: what takes longer answers nobody."""


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
    """Outputs of a session.

    If it was ended, which takes until its next node: DeadlineUnmet, or ModelFault where the model
    is being tried.
    """
    options = onnxruntime.RunOptions()
    waiting = audience()
    with _leash(waiting, lambda: setattr(options, "terminate", True)):
        try:
            made: list[Array] = session.run(outputs, fed, options)
        except Exception:  # the runtime's own class for it is that of many faults
            if options.terminate and waiting is None:
                raise ModelFault(f"a first run did not end in {_TRY_S:g} s") from None
            if options.terminate:
                raise DeadlineUnmet("its run was ended, since nobody waits any more") from None
            raise
    return made


@contextmanager
def _leash(waiting: Audience | None, end: Callable[[], object]) -> Iterator[None]:
    """Calls `end` from elsewhere once all who wait have left, or at the last of their deadlines."""
    left_s = _TRY_S
    if waiting is not None:
        waiting.when_gone(end)
        left_s = max(0.0, waiting.deadline_s - monotonic())
    timer = threading.Timer(left_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()

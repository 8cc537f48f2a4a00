"""Work in a process of its own, whose memory goes back to the machine with it."""

import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import ParamSpec, TypeVar

from ...shared.errors import BuildError

P = ParamSpec("P")
T = TypeVar("T")


def apart(library: str, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Calls a function of a module in a fresh process; its errors are raised here.

    A process that has loaded `library` already, whose memory this saves, does the work itself.
    BuildError if the other process dies. Arguments and result are pickled: keep them small.
    """
    if library in sys.modules:
        return function(*arguments, **named)
    spawn = multiprocessing.get_context("spawn")  # never a fork: libraries here have threads
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        try:
            return pool.submit(function, *arguments, **named).result()
        except BrokenProcessPool as error:
            raise BuildError(
                f"the process of {function.__name__} died; if memory is short, free some and build "
                "again: it carries on"
            ) from error


def bytes_apart(
    library: str, function: Callable[P, bytes], *arguments: P.args, **named: P.kwargs
) -> bytes:
    """As `apart`, for a result that may be large: it comes by a file."""
    if library in sys.modules:
        return function(*arguments, **named)
    with tempfile.NamedTemporaryFile(prefix="hybridge-apart-") as file:
        apart(library, _into, file.name, function, arguments, named)
        return file.read()


def _into(file: str, function: Callable[..., bytes], arguments: object, named: object) -> None:
    assert isinstance(arguments, tuple)
    assert isinstance(named, dict)
    Path(file).write_bytes(function(*arguments, **named))

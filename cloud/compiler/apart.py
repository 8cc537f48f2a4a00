"""Work in a process of its own, whose memory goes back to the machine with it."""

import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from ...shared.errors import BuildError
from .progress import Count, uncounted

P = ParamSpec("P")
T = TypeVar("T")


def apart(library: str, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Calls a function of a module in a fresh process; its errors are raised here.

    A process that has loaded `library` already, whose memory this saves, does the work itself.
    BuildError if the other process dies. Arguments and result are pickled: keep them small.
    """
    if library in sys.modules:
        return function(*arguments, **named)
    return _elsewhere(function.__name__, partial(_uncounted, function, arguments, named))


def counted_apart(
    library: str,
    count: Count,
    function: Callable[Concatenate[Count, P], T],
    *arguments: P.args,
    **named: P.kwargs,
) -> T:
    """As `apart`, for a function that counts what it does: what it tells there is told here."""
    if library in sys.modules:
        return function(count, *arguments, **named)
    return _elsewhere(function.__name__, partial(_counting, function, arguments, named), count)


def bytes_apart(
    library: str, function: Callable[P, bytes], *arguments: P.args, **named: P.kwargs
) -> bytes:
    """As `apart`, for a result that may be large: it comes by a file."""
    if library in sys.modules:
        return function(*arguments, **named)
    with tempfile.NamedTemporaryFile(prefix="hybridge-apart-") as file:
        _elsewhere(function.__name__, partial(_into, file.name, function, arguments, named))
        return file.read()


class _Word(Enum):
    """What the other process has to say."""

    COUNTED = "counted"
    FAILED = "failed"
    DONE = "done"


def _elsewhere(name: str, work: Callable[[Count], T], count: Count = uncounted) -> T:
    spawn = multiprocessing.get_context("spawn")  # never a fork: libraries here have threads
    here, there = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_serve, args=(there, work))
    process.start()
    there.close()  # while it is open here the other's end is not noticed
    try:
        return cast(T, _listen(here, count))
    except EOFError as error:
        raise BuildError(
            f"the process of {name} died; if memory is short, free some and build again: it "
            "carries on"
        ) from error
    except BaseException:
        process.kill()  # if it has not failed itself, nobody wants its result any more
        raise
    finally:
        here.close()
        process.join()


def _listen(here: Connection, count: Count) -> object:
    while True:
        word, said = here.recv()
        match word:
            case _Word.COUNTED:
                count(*said)
            case _Word.FAILED:
                raise said
            case _Word.DONE:
                return said


def _serve(there: Connection, work: Callable[[Count], object]) -> None:
    try:
        done = work(partial(_tell, there))
    except Exception as error:  # raised there, where it was asked for
        there.send((_Word.FAILED, error))
    else:
        there.send((_Word.DONE, done))


def _tell(there: Connection, done: int, total: int) -> None:
    there.send((_Word.COUNTED, (done, total)))


def _uncounted(
    function: Callable[..., T], arguments: Sequence[Any], named: Mapping[str, Any], _: Count
) -> T:
    return function(*arguments, **named)


def _counting(
    function: Callable[..., T], arguments: Sequence[Any], named: Mapping[str, Any], count: Count
) -> T:
    return function(count, *arguments, **named)


def _into(
    file: str,
    function: Callable[..., bytes],
    arguments: Sequence[Any],
    named: Mapping[str, Any],
    _: Count,
) -> None:
    Path(file).write_bytes(function(*arguments, **named))

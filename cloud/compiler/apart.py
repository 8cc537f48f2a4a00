"""Work in a process of its own, whose memory goes back to the machine with it."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from ...shared.errors import BuildError

P = ParamSpec("P")
T = TypeVar("T")


def apart(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Calls a function of a module in a fresh process; its errors are raised here.

    BuildError if the process dies. Arguments and result are pickled: keep them small.
    """
    spawn = multiprocessing.get_context("spawn")  # never a fork: libraries here have threads
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        try:
            return pool.submit(function, *arguments, **named).result()
        except BrokenProcessPool as error:
            raise BuildError(
                f"the process of {function.__name__} died; if memory is short, free some and build "
                "again: it carries on"
            ) from error

"""Converters that talk too much: what they print is kept back and shown only when they fail."""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

from ...shared.errors import BuildError

_SHOWN_BYTES = 4_000


@contextlib.contextmanager
def quiet(step: str) -> Iterator[None]:
    """Keep back all output of a build step, C++ logs included.

    Any failure inside becomes a BuildError that names the step and ends with the tail of its log.
    File descriptors 1 and 2 are redirected for the whole process, so a build runs no steps in
    parallel threads.
    """
    with tempfile.TemporaryFile() as log:
        failure: Exception | None = None
        with _descriptors_to(log.fileno()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield
            except BuildError:
                raise
            # The converters document no errors of their own: anything they raise is a failed build.
            except Exception as error:
                failure = error
        if failure is not None:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _SHOWN_BYTES))
            said = log.read().decode(errors="replace").strip()
            raise BuildError(f"{step}: {type(failure).__name__}: {failure}\n{said}") from failure


@contextlib.contextmanager
def _descriptors_to(target: int) -> Iterator[None]:
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    try:
        with os.fdopen(os.dup(target), "w", encoding="utf-8", errors="replace") as text:
            for number, _ in kept:
                os.dup2(target, number)
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                yield
    finally:
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)

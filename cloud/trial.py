"""A new version is tried in a process of its own first: what it breaks, it breaks there.

That process (`trial_process.py`) stands back behind whatever serves.
"""

import asyncio
import os
import pickle
import signal
import sys
from pathlib import Path

from ..shared.errors import BundleError
from .shelf import Found, Shelf
from .trial_process import BAD, GOOD

_MODULE = "hybridge.cloud.trial_process"
_MOST_S = 600.0
_REASON_BYTES = 2_000


async def try_out(shelf: Shelf, found: Found) -> None:
    """Returns once a version has been loaded, tried and measured elsewhere; BundleError if not."""
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
        )  # fmt: skip
    except OSError as error:
        raise BundleError(f"it cannot be tried: {error}") from error
    order = pickle.dumps((shelf, found))
    try:
        async with asyncio.timeout(_MOST_S):
            _, told = await process.communicate(order)
            code = await process.wait()
    except TimeoutError:
        raise BundleError(f"it was not loaded and tried within {_MOST_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code != GOOD:
        raise BundleError(_reason(code, told[-_REASON_BYTES:].decode(errors="replace")))


def _environment() -> dict[str, str]:
    """The same package, whichever way this process came by it."""
    root = str(Path(__file__).parents[2])
    paths = [root] if (Path(root) / "hybridge").is_dir() else []
    before = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, *([before] if before else [])])}


def _reason(code: int, told: str) -> str:
    last = (told.strip().splitlines() or ["it said nothing"])[-1]
    if code == BAD:
        return last
    if code < 0:
        return f"a process that tried it was ended by {signal.Signals(-code).name}"
    return f"a process that tried it failed: {last}"

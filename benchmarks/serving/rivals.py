"""The servers we are measured against, and how each is spoken to.

Each runs under an interpreter of its own, made with requirements-NAME.txt; `--peer NAME=PYTHON`
names it. A peer without one is left out, and the report says so.
"""

import argparse
import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hybridge.shared.errors import ConfigError
from hybridge.shared.security import Address

from .client import FAULTS, Caller, HttpCaller, infer_caller
from .models import Served, Store
from .processes import ServerProcess, server

_FOLDER = Path(__file__).with_name("peers")
_READY_S = 120.0
_RETRY_S = 0.25
_BOUNDARY = "hybridge-benchmark"
_BYTES = "application/octet-stream"

MakeCaller = Callable[[Address, Served], Caller]


def _raw(path: str) -> MakeCaller:
    def make(address: Address, served: Served) -> Caller:
        return HttpCaller(address, path, served.item.tobytes(), _BYTES)

    return make


def _form(path: str) -> MakeCaller:
    def make(address: Address, served: Served) -> Caller:
        head = (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="content"; filename="x"\r\n'
            f"Content-Type: {_BYTES}\r\n\r\n"
        )
        body = head.encode() + served.item.tobytes() + f"\r\n--{_BOUNDARY}--\r\n".encode()
        return HttpCaller(address, path, body, f"multipart/form-data; boundary={_BOUNDARY}")

    return make


RIVALS: Mapping[str, MakeCaller] = {
    "triton": infer_caller,
    "mosec": _raw("/inference"),
    "bentoml": _raw("/infer"),
    "litserve": _form("/predict"),
    "kserve": infer_caller,
    "ray": _raw("/"),
}


@dataclass(frozen=True)
class Rival:
    """One that can be measured here."""

    name: str
    python: Path

    def caller(self, address: Address, served: Served) -> Caller:
        return RIVALS[self.name](address, served)

    @contextlib.contextmanager
    def serving(self, served: Served, store: Store, *, logs: Path) -> Iterator[ServerProcess]:
        """Runs it, and waits until it answers; ConfigError if it does not."""
        shape = ",".join(map(str, served.item.shape))
        script = _FOLDER / f"{self.name}_peer.py"
        files = (self.python, script, store.onnx(served))
        command = [*map(str, files), served.datatype, shape]
        log = logs / f"{self.name}-{served.name}.log"
        with server(command, log=log) as running:
            try:
                asyncio.run(_answers(lambda: self.caller(running.address, served)))
            except TimeoutError:
                raise ConfigError(f"{self.name} does not answer; {log} may say why") from None
            yield running


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help=f"the interpreter of a peer: {', '.join(RIVALS)}; may be repeated",
    )


def given(options: argparse.Namespace) -> list[Rival]:
    """Those whose interpreters were named."""
    found = []
    for text in options.peer:
        name, equals, python = text.partition("=")
        if name not in RIVALS or not equals or not Path(python).exists():
            raise ConfigError(f"--peer {text}: NAME is {' or '.join(RIVALS)}, PYTHON a program")
        found.append(Rival(name, Path(python)))
    return found


def left_out(rivals: list[Rival]) -> list[str]:
    """A note for each that was not measured."""
    there = {rival.name for rival in rivals}
    return [
        f"{name}: not measured, no --peer {name}=PYTHON" for name in RIVALS if name not in there
    ]


async def _answers(make: Callable[[], Caller]) -> None:
    """Returns once a call is answered; a peer that still starts refuses, resets or says so."""
    end_s = time.monotonic() + _READY_S
    while True:
        caller = make()
        try:
            await caller.call(timeout_s=_READY_S)
        except FAULTS:
            if time.monotonic() > end_s:
                raise TimeoutError("no answer") from None
            await asyncio.sleep(_RETRY_S)
        else:
            return
        finally:
            await caller.close()

"""Clouds, as `hybridge cloud` runs them, but born quickly: one after the other, in one place.

    cloud_process.py ARGUMENTS_OF_HYBRIDGE_CLOUD...

Modules are loaded once; every cloud is a fork of this process, which has started nothing yet, and
can be killed like any other. Orders on stdin, as JSON, a line each:

    {"do": "start", "more": ["--preload"]}    a cloud begins; answers when it listens
    {"do": "kill"}                            it ends at once, as a power cut would end it

A cloud that is left at the end of the orders is asked to stop, and waited for.
"""

import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from wan.workers import Message, reply

from hybridge.cli.main import main as hybridge
from hybridge.cloud import loader, server  # noqa: F401  what a cloud needs is here before it is
from hybridge.shared.errors import HybridgeError, RemoteUnavailable

_LISTENING = re.compile(r"listening on (\S+)")


class Nursery:
    """One cloud at a time."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self._pid = 0

    def obey(self, order: Message) -> Message:
        match order["do"]:
            case "start":
                return self._start(order.get("more", []))
            case "kill":
                self._end(signal.SIGKILL)
                return {"killed": True}
            case other:
                raise RemoteUnavailable(f"no order {other!r}")

    def close(self) -> None:
        if self._pid:
            self._end(signal.SIGTERM)

    def _start(self, more: Sequence[str]) -> Message:
        self.close()
        ours, theirs = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(ours)
            os.dup2(theirs, sys.stdout.fileno())
            os._exit(_cloud([*self._arguments, *more]))
        os.close(theirs)
        self._said = os.fdopen(ours)  # kept: a cloud whose stdout is closed would end
        for line in self._said:
            if match := _LISTENING.search(line):
                return {"address": match[1]}
        self._end(signal.SIGKILL)
        raise RemoteUnavailable("the cloud did not start")

    def _end(self, how: signal.Signals) -> None:
        os.kill(self._pid, how)
        os.waitpid(self._pid, 0)
        self._pid = 0
        self._said.close()


def _cloud(arguments: Sequence[str]) -> int:
    try:
        return hybridge(["cloud", *arguments])
    finally:
        sys.stdout.flush()


def main() -> None:
    nursery = Nursery(sys.argv[1:])
    reply({"ready": True})
    try:
        for line in sys.stdin:
            try:
                reply(nursery.obey(json.loads(line)))
            except HybridgeError as error:
                reply({"error": str(error)})
    finally:
        nursery.close()


if __name__ == "__main__":
    main()

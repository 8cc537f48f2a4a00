"""Mosec: raw bytes over HTTP, a process per core."""

import os
import sys
from typing import Any

from session import CORES, Arguments, Session, announce, free_port

PORT = int(os.environ.setdefault("MOSEC_PORT", str(free_port())))
os.environ.setdefault("MOSEC_ADDRESS", "127.0.0.1")
os.environ.setdefault("PEER_ARGUMENTS", "\n".join(sys.argv[1:4]))
sys.argv[1:] = []  # Mosec reads them too

from mosec import Server, Worker  # noqa: E402


def _arguments() -> Arguments:
    model, datatype, shape = os.environ["PEER_ARGUMENTS"].split("\n")
    return Arguments(model, datatype, tuple(int(size) for size in shape.split(",")))


class Model(Worker):
    """The model as Mosec wants it."""

    def __init__(self) -> None:
        super().__init__()
        self._arguments = _arguments()
        self._session = Session(self._arguments.model)

    def deserialize(self, data: bytes) -> Any:
        return self._arguments.array(data)

    def forward(self, data: Any) -> Any:
        return self._session.run(data)

    def serialize(self, data: Any) -> bytes:
        return bytes(data.tobytes())


if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, num=CORES)
    announce(PORT)
    server.run()

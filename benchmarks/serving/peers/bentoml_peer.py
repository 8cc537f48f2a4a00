"""BentoML: raw bytes over HTTP, a worker per core."""

import os
import sys

if __name__ == "__main__":
    from session import announce, free_port

    port = free_port()
    os.environ["PEER_ARGUMENTS"] = "\n".join(sys.argv[1:4])
    announce(port)
    bentoml = os.path.join(os.path.dirname(sys.executable), "bentoml")  # noqa: PTH118, PTH120
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    os.chdir(here)
    command = [bentoml, "serve", "bentoml_peer:Peer", "--host", "127.0.0.1", "--port", str(port)]
    os.execv(bentoml, command)  # noqa: S606

import bentoml
from session import CORES, Arguments, Session


@bentoml.service(workers=CORES, traffic={"timeout": 60, "max_concurrency": 64})
class Peer:
    """The model as BentoML wants it."""

    def __init__(self) -> None:
        model, datatype, shape = os.environ["PEER_ARGUMENTS"].split("\n")
        sizes = tuple(int(size) for size in shape.split(","))
        self._arguments = Arguments(model, datatype, sizes)
        self._session = Session(model)

    @bentoml.api
    def infer(self, content: bytes, /) -> bytes:
        return bytes(self._session.run(self._arguments.array(content)).tobytes())

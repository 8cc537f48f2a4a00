"""Ray Serve: raw bytes over HTTP, a replica per core."""

import threading

from ray import serve
from session import CORES, Arguments, Session, announce, free_port
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=CORES, max_ongoing_requests=32, ray_actor_options={"num_cpus": 0.5})
class Peer:
    """The model as Ray Serve wants it."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._session = Session(arguments.model)

    async def __call__(self, request: Request) -> Response:
        array = self._arguments.array(await request.body())
        return Response(self._session.run(array).tobytes())


if __name__ == "__main__":
    import os
    import sys

    # Replicas are processes of their own, which have to find session.py.
    os.environ["PYTHONPATH"] = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Peer.bind(Arguments.read()), name="peer", route_prefix="/")
    announce(port)
    threading.Event().wait()
    sys.exit(0)

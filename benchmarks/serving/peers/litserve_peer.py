"""LitServe: a file in a form over HTTP, a worker per core."""

from typing import Any

import litserve
from fastapi import Request, Response
from session import CORES, Arguments, Session, announce, free_port


class Api(litserve.LitAPI):
    """The model as LitServe wants it."""

    def setup(self, device: str) -> None:
        self._arguments = Arguments.read()
        self._session = Session(self._arguments.model)

    def decode_request(self, request: Request) -> Any:  # the form in it, says LitServe
        form: Any = request
        return self._arguments.array(form["content"].file.read())

    def predict(self, array: Any) -> Any:
        return self._session.run(array)

    def encode_response(self, output: Any) -> Response:
        return Response(content=output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    port = free_port()
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=CORES)
    announce(port)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")

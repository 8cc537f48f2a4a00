"""The KServe SDK: the Open Inference Protocol over gRPC."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import kserve
from kserve import InferOutput, InferRequest, InferResponse
from session import CORES, Arguments, Session, announce, free_port


class Peer(kserve.Model):
    """The model as KServe wants it."""

    def __init__(self, name: str, arguments: Arguments) -> None:
        super().__init__(name)
        self._session = Session(arguments.model)
        self._pool = ThreadPoolExecutor(CORES)
        self.ready = True

    async def predict(
        self, payload: InferRequest, headers: Any = None, response_headers: Any = None
    ) -> InferResponse:
        array = payload.inputs[0].as_numpy()
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._pool, self._session.run, array)
        output = InferOutput(name="logits", shape=list(answer.shape), datatype="FP32")
        output.set_data_from_numpy(answer, binary_data=True)
        return InferResponse(
            response_id=payload.id or "0", model_name=self.name, infer_outputs=[output]
        )


if __name__ == "__main__":
    import os
    import sys

    arguments = Arguments.read()
    name = os.path.splitext(os.path.basename(arguments.model))[0]  # noqa: PTH119, PTH122
    sys.argv[1:] = []
    port = free_port()
    announce(port)
    server = kserve.ModelServer(http_port=free_port(), grpc_port=port, workers=1)
    server.start([Peer(name, arguments)])

"""The least that a gRPC server in Python can be: raw bytes, no protobuf, no scheduler.

    python bare_server.py                              answers with what it was sent
    python bare_server.py MODEL.onnx DATATYPE N,H,W,C  receives and discards, and for each request
                                                       runs the session on an input of its own
    python bare_server.py ... fed                      the same, on the input that came: the least
                                                       that a server can do that answers

Sessions are as the cloud's: one, with a thread per core, each run on one core. Prints its port,
serves until its stdin ends.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import onnxruntime

from hybridge.protos.oip import MODEL_INFER
from hybridge.shared.security import SERVER_OPTIONS
from hybridge.shared.tensor import DTYPES

Behaviour = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]


async def _echo(request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
    return request


def _computing(model: str, datatype: str, shape: tuple[int, ...], *, fed: bool) -> Behaviour:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name, own = session.get_inputs()[0].name, np.ones(shape, DTYPES[datatype])
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))

    def run(request: bytes | None) -> bytes:
        batch = own
        if request is not None:
            # Its raw contents end it; wherever they begin, aligned they are not.
            came = np.frombuffer(memoryview(request)[-own.nbytes :], own.dtype)
            batch = came.reshape(shape).copy()
        (answer,) = session.run(None, {name: batch})
        return bytes(answer.tobytes())

    async def discard_and_run(
        request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> bytes:
        del request
        return await asyncio.get_running_loop().run_in_executor(pool, run, None)

    async def run_it(request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        return await asyncio.get_running_loop().run_in_executor(pool, run, request)

    return run_it if fed else discard_and_run


async def serve(behaviour: Behaviour) -> None:
    server = grpc.aio.server(options=SERVER_OPTIONS)
    handler: grpc.RpcMethodHandler[bytes, bytes]
    handler = grpc.unary_unary_rpc_method_handler(behaviour)
    service, method = MODEL_INFER.path.strip("/").split("/")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    sys.stdout.write(f"{server.add_insecure_port('127.0.0.1:0')}\n")
    sys.stdout.flush()
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


def main(arguments: list[str]) -> None:
    if not arguments:
        asyncio.run(serve(_echo))
        return
    model, datatype, shape, *fed = arguments
    sizes = tuple(int(size) for size in shape.split(","))
    asyncio.run(serve(_computing(model, datatype, sizes, fed=bool(fed))))


if __name__ == "__main__":
    main(sys.argv[1:])

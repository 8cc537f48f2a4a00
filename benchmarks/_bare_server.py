"""The shortest gRPC server around a LiteRT call: no protobuf, no event loop, one thread.

It is what the edge's service is compared with: raw pixels in, raw probabilities out. Prints its
port, serves until its stdin ends.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import msgspec
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from hybridge.devices.pixel_input import PixelInput
from hybridge.shared.preprocess import PreprocessSpec

METHOD = "/bare/Infer"


def serve(preprocessing: str, model: str) -> None:
    spec = msgspec.json.decode(preprocessing, type=PreprocessSpec)
    light = Interpreter(model_path=model, num_threads=1)
    light.allocate_tensors()
    taken = light.get_input_details()[0]
    given, (scale, zero_point) = taken["index"], taken["quantization"]
    as_input = PixelInput(spec, taken["dtype"], scale=scale, zero_point=zero_point)
    made = light.get_output_details()[0]["index"]
    shape = (spec.size_px, spec.size_px, 3)

    def infer(request: bytes, context: grpc.ServicerContext) -> bytes:
        light.set_tensor(given, as_input(np.frombuffer(request, np.uint8).reshape(shape)))
        light.invoke()
        return bytes(light.get_tensor(made).tobytes())

    server = grpc.server(ThreadPoolExecutor(1))
    service, method = METHOD.strip("/").split("/")
    handler: grpc.RpcMethodHandler[bytes, bytes]
    handler = grpc.unary_unary_rpc_method_handler(infer)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    sys.stdout.write(f"{server.add_insecure_port('127.0.0.1:0')}\n")
    sys.stdout.flush()
    server.start()
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    serve(*sys.argv[1:])

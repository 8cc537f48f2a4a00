"""Our Open Inference Protocol against tritonclient's, field by field and over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from tritonclient.grpc import service_pb2 as triton_pb
from tritonclient.utils import InferenceServerException

from hybridge.protos import oip
from hybridge.protos import open_inference_pb2 as pb

PUBLIC_PREFIX = "inference."
OUR_PREFIX = "hybridge.inference.v2."


class Doubler(oip.Servicer):
    """Answers every FP32 tensor with its double."""

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: oip.Context
    ) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: oip.Context
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="doubler", version="7", extensions=["statistics"])

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: oip.Context
    ) -> pb.ModelMetadataResponse:
        tensor = pb.ModelMetadataResponse.TensorMetadata(name="x", datatype="FP32", shape=[-1])
        return pb.ModelMetadataResponse(name=request.name, versions=["1", "2"], inputs=[tensor])

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: oip.Context
    ) -> pb.ModelInferResponse:
        doubled = np.frombuffer(request.raw_input_contents[0], "<f4") * 2
        response = pb.ModelInferResponse(
            model_name=request.model_name, id=request.id, raw_output_contents=[doubled.tobytes()]
        )
        response.outputs.add(name="y", datatype="FP32", shape=request.inputs[0].shape)
        response.parameters["plan"].string_param = "local"
        response.parameters["budget_ms"].CopyFrom(request.parameters["latency_budget_ms"])
        return response

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: oip.Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        async for request in requests:
            yield pb.ModelStreamInferResponse(
                infer_response=await self.ModelInfer(request, context)
            )


@asynccontextmanager
async def serving(servicer: oip.Servicer) -> AsyncIterator[str]:
    server = grpc.aio.server()
    oip.add_servicer(server, servicer)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=None)


def triton_input(values: np.ndarray) -> tritonclient.grpc.InferInput:
    tensor = tritonclient.grpc.InferInput("x", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values)
    return tensor


def messages(top: dict[str, Descriptor]) -> dict[str, Descriptor]:
    """All messages, nested ones and map entries too, by name without the package."""
    found: dict[str, Descriptor] = {}
    waiting = list(top.values())
    while waiting:
        message = waiting.pop()
        name = message.full_name.removeprefix(OUR_PREFIX).removeprefix(PUBLIC_PREFIX)
        found[name] = message
        waiting.extend(message.nested_types)
    return found


def on_the_wire(field: FieldDescriptor) -> tuple[object, ...]:
    """All that decides how a field is written, read and named."""
    reference = field.message_type.full_name if field.message_type else ""
    return (
        field.name,
        field.number,
        field.type,
        field.is_repeated,
        field.json_name,
        field.containing_oneof.name if field.containing_oneof else None,
        reference.removeprefix(OUR_PREFIX).removeprefix(PUBLIC_PREFIX),
        bool(field.message_type and field.message_type.GetOptions().map_entry),
    )


OURS = messages(dict(pb.DESCRIPTOR.message_types_by_name))
PUBLIC = messages(dict(triton_pb.DESCRIPTOR.message_types_by_name))


@pytest.mark.parametrize("name", sorted(OURS))
def test_message_is_the_public_one(name: str) -> None:
    ours = {on_the_wire(field) for field in OURS[name].fields}
    assert ours == {on_the_wire(field) for field in PUBLIC[name].fields}


def test_methods_are_public_ones() -> None:
    public = triton_pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert public.full_name == oip.SERVICE_NAME
    for method in oip.METHODS:
        theirs = public.methods_by_name[method.name]
        assert method.request.DESCRIPTOR.name == theirs.input_type.name
        assert method.response.DESCRIPTOR.name == theirs.output_type.name
        assert (theirs.client_streaming, theirs.server_streaming) == (method.streaming,) * 2


def test_only_these_public_methods_are_left_out() -> None:
    public = triton_pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    left_out = set(public) - {method.name for method in oip.METHODS}
    assert {name for name in left_out if "CudaSharedMemory" not in name} == {
        "TraceSetting",
        "LogSettings",
    }


async def test_stub_has_every_method() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        assert set(vars(oip.Stub(channel))) == {method.name for method in oip.METHODS}


@pytest.mark.parametrize("method", oip.METHODS, ids=lambda method: method.name)
async def test_servicer_answers_unimplemented(method: oip.Method) -> None:
    async with serving(oip.Servicer()) as address, grpc.aio.insecure_channel(address) as channel:
        call = getattr(oip.Stub(channel), method.name)
        request = method.request()
        answer = call(iter([request])).read() if method.streaming else call(request)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answer
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == f"{method.name} is not served here"


async def test_stub_against_servicer() -> None:
    request = pb.ModelInferRequest(model_name="m", id="1", raw_input_contents=[b"\0\0\0\x40"])
    request.inputs.add(name="x", datatype="FP32", shape=[1])
    async with serving(Doubler()) as address, grpc.aio.insecure_channel(address) as channel:
        stub = oip.Stub(channel)
        unary = await stub.ModelInfer(request, timeout=10)
        streamed = [answer async for answer in stub.ModelStreamInfer(iter([request] * 3))]
    assert unary.raw_output_contents == [b"\0\0\x80\x40"]
    assert [answer.infer_response for answer in streamed] == [unary] * 3


async def test_tritonclient_is_served() -> None:
    values = np.arange(5, dtype=np.float32)

    def ask(address: str) -> None:
        with tritonclient.grpc.InferenceServerClient(address) as client:
            assert client.is_server_live()
            assert client.get_server_metadata().name == "doubler"
            assert list(client.get_model_metadata("m").versions) == ["1", "2"]
            result = client.infer(
                "m", [triton_input(values)], request_id="9", parameters={"latency_budget_ms": 40}
            )
            np.testing.assert_array_equal(result.as_numpy("y"), values * 2)
            response = result.get_response()
            assert response.id == "9"
            assert response.parameters["plan"].string_param == "local"
            assert response.parameters["budget_ms"].int64_param == 40
            with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
                client.is_server_ready()

    async with serving(Doubler()) as address:
        await asyncio.to_thread(ask, address)  # the client blocks, the server needs the loop


async def test_tritonclient_aio_is_served() -> None:
    values = np.ones((2, 3), dtype=np.float32)
    client_class = tritonclient.grpc.aio.InferenceServerClient
    async with serving(Doubler()) as address, client_class(address) as client:
        result = await client.infer("m", [triton_input(values)])
    np.testing.assert_array_equal(result.as_numpy("y"), values * 2)

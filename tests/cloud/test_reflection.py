"""What a generic client learns, and can then call: as grpcurl works, in a pool of its own."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2 as pb

from .conftest import Cloud

NAMES = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]


async def ask(cloud: Cloud, name: str, **question: Any) -> pb.ServerReflectionResponse:
    call = cloud.channel.stream_stream(
        f"/{name}/ServerReflectionInfo",
        request_serializer=pb.ServerReflectionRequest.SerializeToString,
        response_deserializer=pb.ServerReflectionResponse.FromString,
    )

    async def questions() -> AsyncIterator[pb.ServerReflectionRequest]:
        yield pb.ServerReflectionRequest(**question)

    (answer,) = [each async for each in call(questions())]
    return answer


@pytest.mark.parametrize("name", NAMES)
async def test_services_are_listed(cloud: Cloud, name: str) -> None:
    answer = await ask(cloud, name, list_services="")
    assert {each.name for each in answer.list_services_response.service} == {
        "inference.GRPCInferenceService",
        "hybridge.fleet.v1.Fleet",
        "grpc.health.v1.Health",
        *NAMES,
    }


async def test_all_that_is_listed_is_described(cloud: Cloud) -> None:
    answer = await ask(cloud, NAMES[0], list_services="")
    for service in answer.list_services_response.service:
        found = await ask(cloud, NAMES[0], file_containing_symbol=service.name)
        pool = DescriptorPool()
        for encoded in found.file_descriptor_response.file_descriptor_proto:
            pool.Add(FileDescriptorProto.FromString(encoded))
        assert pool.FindServiceByName(service.name).methods


async def test_a_generic_client_calls_what_it_found(cloud: Cloud) -> None:
    pool = DescriptorPool()
    for symbol in ("inference.GRPCInferenceService", "hybridge.fleet.v1.Fleet"):
        answer = await ask(cloud, NAMES[1], file_containing_symbol=symbol)
        for encoded in answer.file_descriptor_response.file_descriptor_proto:
            pool.Add(FileDescriptorProto.FromString(encoded))
    service = pool.FindServiceByName("inference.GRPCInferenceService")
    assert [each.name for each in service.methods if each.client_streaming] == ["ModelStreamInfer"]
    method = service.methods_by_name["ModelMetadata"]
    assert method.input_type.full_name == "inference.ModelMetadataRequest"
    call: Any = cloud.channel.unary_unary(
        f"/{service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    request = GetMessageClass(method.input_type)()
    json_format.ParseDict({"name": "tiny"}, request)
    told = json_format.MessageToDict(await call(request))
    assert told["versions"] == ["1"]
    assert told["inputs"][0]["name"] == "pixels"


async def test_what_is_not_there(cloud: Cloud) -> None:
    answer = await ask(cloud, NAMES[0], file_containing_symbol="hybridge.inference.v2.None")
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]

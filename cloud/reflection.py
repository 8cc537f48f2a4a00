"""Server reflection: generic clients such as grpcurl learn from the server what it serves."""

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha.reflection import aio

from ..protos import fleet_pb2, oip
from ..protos.public import moved, public_file

FLEET = fleet_pb2.DESCRIPTOR.services_by_name["Fleet"].full_name
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_PACKAGES = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
"""The protocol was declared stable as it was: both packages have the same messages."""


def add_reflection(server: grpc.aio.Server) -> None:
    """Describes our services on a server, out of a descriptor pool of its own."""
    pool = DescriptorPool()
    pool.Add(public_file())
    for file in (fleet_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR):
        pool.Add(moved(file, name=file.name, package=file.package))
    for package in _PACKAGES:
        name = f"{package.replace('.', '/')}/reflection.proto"
        pool.Add(moved(pb.DESCRIPTOR, name=name, package=package))
    names = [f"{package}.ServerReflection" for package in _PACKAGES]
    servicer = aio.ReflectionServicer((oip.SERVICE_NAME, FLEET, HEALTH, *names), pool=pool)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=pb.ServerReflectionRequest.FromString,
        response_serializer=pb.ServerReflectionResponse.SerializeToString,
    )
    for name in names:
        generic = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
        server.add_generic_rpc_handlers((generic,))

"""Server reflection: generic clients such as grpcurl learn from the server what it serves."""

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha.reflection import aio

from ..protos import fleet_pb2, oip
from ..protos.public import public_file

FLEET = fleet_pb2.DESCRIPTOR.services_by_name["Fleet"].full_name
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""The protocol was declared stable as it was: both names have the same messages."""


def add_reflection(server: grpc.aio.Server) -> None:
    """Describes our services on a server, out of a descriptor pool of its own."""
    pool = DescriptorPool()
    for file in (public_file(), *map(_proto, (fleet_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR))):
        pool.Add(file)
    pool.Add(_proto(pb.DESCRIPTOR))
    services = (oip.SERVICE_NAME, FLEET, HEALTH, *_NAMES)
    handler = grpc.stream_stream_rpc_method_handler(
        aio.ReflectionServicer(services, pool=pool).ServerReflectionInfo,
        request_deserializer=pb.ServerReflectionRequest.FromString,
        response_serializer=pb.ServerReflectionResponse.SerializeToString,
    )
    for name in _NAMES:
        generic = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
        server.add_generic_rpc_handlers((generic,))


def _proto(descriptor: FileDescriptor) -> FileDescriptorProto:
    file = FileDescriptorProto()
    descriptor.CopyToProto(file)
    return file

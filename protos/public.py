"""The Open Inference Protocol under its public name, as those see it who ask a server what it has.

Our messages live in a package of their own (see open_inference.proto), and no file may declare
`inference.*` in this process' pool. Whoever asks by reflection is in another process: the file made
here holds the same messages under package `inference`, and the service.
"""

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from . import model_config_pb2 as config_pb
from . import open_inference_pb2 as pb
from .oip import METHODS, SERVICE_NAME

FILE_NAME = "open_inference.proto"

_PACKAGE, _, _SERVICE = SERVICE_NAME.rpartition(".")


def public_file() -> FileDescriptorProto:
    """The description of what is served under `inference.GRPCInferenceService`, in one file."""
    file = moved(pb.DESCRIPTOR, name=FILE_NAME, package=_PACKAGE)
    config = moved(config_pb.DESCRIPTOR, name=FILE_NAME, package=_PACKAGE)
    file.dependency.clear()
    file.message_type.extend(config.message_type)
    file.enum_type.extend(config.enum_type)
    service = file.service.add(name=_SERVICE)
    for method in METHODS:
        service.method.add(
            name=method.name,
            input_type=f".{_PACKAGE}.{method.request.DESCRIPTOR.name}",
            output_type=f".{_PACKAGE}.{method.response.DESCRIPTOR.name}",
            client_streaming=method.streaming,
            server_streaming=method.streaming,
        )
    return file


def moved(descriptor: FileDescriptor, *, name: str, package: str) -> FileDescriptorProto:
    """The same file under another name, all it declares in another package."""
    file = FileDescriptorProto()
    descriptor.CopyToProto(file)
    file.name, file.package = name, package
    before, after = f".{descriptor.package}.", f".{package}."
    for message in file.message_type:
        _move(message, before, after)
    for service in file.service:
        for method in service.method:
            method.input_type = _in(method.input_type, before, after)
            method.output_type = _in(method.output_type, before, after)
    return file


def _move(message: DescriptorProto, before: str, after: str) -> None:
    for field in message.field:
        if field.type_name:
            field.type_name = _in(field.type_name, before, after)
    for nested in message.nested_type:
        _move(nested, before, after)


def _in(type_name: str, before: str, after: str) -> str:
    return after + type_name.removeprefix(before) if type_name.startswith(before) else type_name

"""The Open Inference Protocol under its public name, as those see it who ask a server what it has.

Our messages live in a package of their own (see open_inference.proto), and no file may declare
`inference.*` in this process' pool. Whoever asks by reflection is in another process: the file made
here holds the same messages under package `inference`, and the service.
"""

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from . import open_inference_pb2 as pb
from .oip import METHODS, SERVICE_NAME

FILE_NAME = "open_inference.proto"

_OURS = f".{pb.DESCRIPTOR.package}."
_PACKAGE, _, _SERVICE = SERVICE_NAME.rpartition(".")


def public_file() -> FileDescriptorProto:
    """The description of what is served under `inference.GRPCInferenceService`."""
    file = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = FILE_NAME, _PACKAGE
    for message in file.message_type:
        _rename(message)
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


def _rename(message: DescriptorProto) -> None:
    for field in message.field:
        if field.type_name.startswith(_OURS):
            field.type_name = f".{_PACKAGE}.{field.type_name.removeprefix(_OURS)}"
    for nested in message.nested_type:
        _rename(nested)

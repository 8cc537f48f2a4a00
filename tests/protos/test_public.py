from google.protobuf.descriptor_pool import DescriptorPool
from tritonclient.grpc import model_config_pb2 as config_pb
from tritonclient.grpc import service_pb2 as triton_pb

from hybridge.protos.oip import METHODS
from hybridge.protos.public import public_file

from .test_open_inference import messages, on_the_wire


def test_it_describes_the_public_protocol() -> None:
    pool = DescriptorPool()
    pool.Add(public_file())
    ours = pool.FindServiceByName("inference.GRPCInferenceService")
    theirs = triton_pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert [each.name for each in ours.methods] == [method.name for method in METHODS]
    for method in ours.methods:
        public = theirs.methods_by_name[method.name]
        assert method.input_type.full_name == public.input_type.full_name
        assert method.output_type.full_name == public.output_type.full_name
        assert method.client_streaming == public.client_streaming
        assert method.server_streaming == public.server_streaming
    known = messages(
        dict(triton_pb.DESCRIPTOR.message_types_by_name)
        | dict(config_pb.DESCRIPTOR.message_types_by_name)
    )
    for name, message in messages(dict(ours.file.message_types_by_name)).items():
        assert message.full_name == known[name].full_name
        assert {on_the_wire(each) for each in message.fields} == {
            on_the_wire(each) for each in known[name].fields
        }

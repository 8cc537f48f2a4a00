"""Messages taken apart by hand are what protobuf makes of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip
from hybridge.shared.errors import RequestError
from hybridge.shared.oip_wire import read_infer, write_infer

SHORT = st.text(max_size=9)


@st.composite
def requests(draw: st.DrawFn) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(
        model_name=draw(SHORT), model_version=draw(SHORT), id=draw(st.text(max_size=200))
    )
    values = st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | SHORT
    oip.set_parameters(request.parameters, draw(st.dictionaries(SHORT, values, max_size=4)))
    for size in draw(st.lists(st.integers(0, 300), max_size=4)):
        oip.add_input(request, draw(SHORT), np.arange(size, dtype=np.float32))
    request.outputs.extend(
        pb.ModelInferRequest.InferRequestedOutputTensor(name=name)
        for name in draw(st.lists(SHORT, max_size=3))
    )
    return request


def as_values(request: oip.InferRequest) -> tuple[object, ...]:
    inputs = [(each.name, each.datatype, each.shape, bytes(each.raw)) for each in request.inputs]
    named = request.model_name, request.model_version, request.id
    return (*named, request.parameters, inputs, request.outputs)


@given(requests())
@settings(deadline=None, derandomize=True)
def test_reads_what_protobuf_reads(request: pb.ModelInferRequest) -> None:
    message = request.SerializeToString()
    assert as_values(read_infer(message)) == as_values(oip.read_request(request))


@given(requests(), st.data())
@settings(deadline=None, derandomize=True)
def test_a_message_that_is_cut_off_or_changed_is_read_as_protobuf_does_or_refused(
    request: pb.ModelInferRequest, data: st.DataObject
) -> None:
    message = bytearray(request.SerializeToString())
    if data.draw(st.booleans()):
        message = message[: data.draw(st.integers(0, len(message)))]
    elif message:
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = read_infer(bytes(message))
    except RequestError:
        return
    assert isinstance(read, oip.InferRequest)


@given(st.binary(max_size=200))
@settings(deadline=None, derandomize=True)
def test_random_bytes_are_no_message_or_one(message: bytes) -> None:
    try:
        read = read_infer(message)
    except RequestError:
        return
    assert as_values(read) == as_values(oip.read_request(pb.ModelInferRequest.FromString(message)))


def test_contents_in_any_place_and_in_very_many_fields() -> None:
    request = pb.ModelInferRequest(model_name="m")
    oip.add_input(request, "a", np.arange(5, dtype=np.int64))
    oip.add_input(request, "b", np.arange(3, dtype=np.uint8))
    contents = pb.ModelInferRequest(raw_input_contents=request.raw_input_contents)
    rest = pb.ModelInferRequest(model_name="m", inputs=request.inputs)
    message = contents.SerializeToString() + rest.SerializeToString()
    expected = as_values(oip.read_request(request))
    assert as_values(read_infer(message)) == expected
    many = message + 100 * pb.ModelInferRequest(model_name="m").SerializeToString()
    assert as_values(read_infer(many)) == expected


def test_a_large_content_is_not_copied() -> None:
    request = pb.ModelInferRequest()
    oip.add_input(request, "pixels", np.zeros(1 << 20, np.uint8))
    message = request.SerializeToString()
    (tensor,) = read_infer(message).inputs
    assert np.shares_memory(tensor.array(), np.frombuffer(message, np.uint8))


@given(st.dictionaries(SHORT, st.integers(0, 400), max_size=4))
@settings(deadline=None, derandomize=True)
def test_writes_what_protobuf_writes(sizes: dict[str, int]) -> None:
    response = oip.InferResponse(
        model_name="m",
        model_version="1",
        id="x",
        parameters={"queue_ms": 1.5},
        outputs={name: np.arange(size, dtype=np.float32)[::-1] for name, size in sizes.items()},
    )
    read = pb.ModelInferResponse.FromString(write_infer(response))
    assert read == oip.write_response(response)


@pytest.mark.parametrize("number", [4, 5, 6, 7])
def test_messages_of_very_many_fields_are_refused_before_they_are_read(number: int) -> None:
    field = bytes([number << 3 | 2, 0])
    for message in (field * 100_000, bytes([5 << 3 | 2, 0xC0, 0x9A, 0x0C]) + field * 100_000):
        with pytest.raises(RequestError, match="more than 4096 fields"):
            read_infer(message)


def test_large_tensors_go_raw() -> None:
    request = pb.ModelInferRequest(model_name="m")
    oip.add_input(request, "x", np.zeros(9 << 20, np.uint8))
    (tensor,) = read_infer(request.SerializeToString()).inputs
    assert len(tensor.raw) == 9 << 20
    listed = request.inputs.add(name="y", datatype="FP32", shape=[9 << 18])
    listed.contents.fp32_contents.extend(np.zeros(9 << 18, np.float32))
    with pytest.raises(RequestError, match="bytes beside raw_input_contents"):
        read_infer(request.SerializeToString())

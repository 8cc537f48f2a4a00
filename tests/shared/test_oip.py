import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip
from hybridge.shared.deadline import MAX_BUDGET_MS
from hybridge.shared.errors import BudgetError, RequestError, TensorError
from hybridge.shared.tensor import to_raw

values = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text()
)


@given(st.dictionaries(st.text(), values))
def test_parameters_keep_value_and_type(parameters: dict[str, oip.Value]) -> None:
    request = pb.ModelInferRequest()
    oip.set_parameters(request.parameters, parameters)
    back = oip.get_parameters(
        pb.ModelInferRequest.FromString(request.SerializeToString()).parameters
    )
    assert back == parameters
    assert {name: type(value) for name, value in back.items()} == {
        name: type(value) for name, value in parameters.items()
    }


def test_parameters_set_to_nothing_are_left_out() -> None:
    request = pb.ModelInferRequest()
    request.parameters["empty"].SetInParent()
    assert "empty" in request.parameters
    assert oip.get_parameters(request.parameters) == {}


@pytest.mark.parametrize(("value", "expected"), [(5, 5.0), (2.5, 2.5), ("7e1", 70.0), (0, 0.0)])
def test_numbers(value: oip.Value, expected: float) -> None:
    assert oip.number({"n": value}, "n") == expected
    assert oip.number({}, "n") is None


@pytest.mark.parametrize("value", [True, False, "", "soon", "1,5", "0x10"])
def test_what_is_no_number(value: oip.Value) -> None:
    with pytest.raises(RequestError, match="parameter n must be a number"):
        oip.number({"n": value}, "n")


@pytest.mark.parametrize(
    ("parameters", "rpc_left_s", "expected_ms"),
    [
        ({}, None, 250.0),
        ({}, 0.1, 100.0),
        ({}, 1e9, MAX_BUDGET_MS),
        ({}, math.inf, 250.0),
        ({"latency_budget_ms": 40}, None, 40.0),
        ({"latency_budget_ms": "40"}, None, 40.0),
        ({"latency_budget_ms": 40.0}, 0.1, 40.0),
        ({"latency_budget_ms": 400.0}, 0.1, 100.0),
        ({"latency_budget_ms": 40.0, "timeout": 1}, None, 40.0),
        ({"timeout": 70_000}, None, 70.0),
        ({"timeout": 0}, None, 250.0),
        ({"timeout": 70_000}, 0.05, 50.0),
    ],
)
def test_which_budget_holds(
    parameters: dict[str, oip.Value], rpc_left_s: float | None, expected_ms: float
) -> None:
    budget_ms = oip.requested_budget_ms(parameters, rpc_left_s=rpc_left_s, default_ms=250.0)
    assert budget_ms == pytest.approx(expected_ms)


@pytest.mark.parametrize("name", ["latency_budget_ms", "timeout"])
@pytest.mark.parametrize("value", [-5, 1e13, math.nan, math.inf, "nan", "-inf"])
def test_what_is_no_budget(name: str, value: oip.Value) -> None:
    for rpc_left_s in (None, 0.1):
        with pytest.raises(BudgetError):
            oip.requested_budget_ms({name: value}, rpc_left_s=rpc_left_s, default_ms=250.0)


def test_a_budget_of_zero_is_none_at_all() -> None:
    with pytest.raises(BudgetError, match="0 ms; it must be above 0"):
        oip.requested_budget_ms({"latency_budget_ms": 0}, rpc_left_s=None, default_ms=250.0)


@pytest.mark.parametrize(
    ("value", "expected"), [(True, True), (False, False), ("true", True), ("False", False)]
)
def test_flags(value: oip.Value, expected: bool) -> None:
    assert oip.flag({"follow": value}, "follow") is expected
    assert oip.flag({}, "follow") is False


@pytest.mark.parametrize("value", ["", "yes", "1", 1, 0, 1.0])
def test_what_is_no_flag(value: oip.Value) -> None:
    with pytest.raises(RequestError, match="parameter follow must be true or false, not "):
        oip.flag({"follow": value}, "follow")


def test_inputs_come_back() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    request = pb.ModelInferRequest()
    oip.add_input(request, "x", array)
    (tensor,) = oip.inputs_of(request)
    assert (tensor.name, tensor.datatype, tensor.shape) == ("x", "FP32", (2, 3))
    np.testing.assert_array_equal(tensor.array(), array)


@pytest.mark.parametrize("raw", [True, False])
def test_elements_come_raw_or_listed(raw: bool) -> None:
    request = pb.ModelInferRequest()
    if raw:
        oip.add_bytes_input(request, "picture", [b"ab", b""])
    else:
        tensor = request.inputs.add(name="picture", datatype="BYTES", shape=[2])
        tensor.contents.bytes_contents.extend([b"ab", b""])
    (tensor_read,) = oip.inputs_of(request)
    assert tensor_read.elements() == [b"ab", b""]


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-128, 127]),
        ("INT64", "int64_contents", [-(2**40), 2**40]),
        ("UINT8", "uint_contents", [0, 255]),
        ("UINT64", "uint64_contents", [0, 2**64 - 1]),
        ("FP32", "fp32_contents", [0.5, -2.0]),
        ("FP64", "fp64_contents", [0.1, -2.0]),
    ],
)
def test_numbers_may_be_listed(datatype: str, field: str, values: list[Any]) -> None:
    request = pb.ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype=datatype, shape=[2])
    getattr(tensor.contents, field).extend(values)
    (read,) = oip.inputs_of(request)
    assert read.array().tolist() == values


def test_listed_numbers_must_be_of_the_datatype() -> None:
    request = pb.ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype="INT8", shape=[1])
    tensor.contents.int_contents.append(128)
    with pytest.raises(TensorError, match=r"input 'x': .*128 out of bounds for int8"):
        list(oip.inputs_of(request))
    tensor.contents.Clear()
    tensor.contents.fp32_contents.append(1.0)
    with pytest.raises(TensorError, match="input 'x' has no contents"):
        list(oip.inputs_of(request))


@pytest.mark.parametrize(
    ("datatype", "field", "value"),
    [("BOOL", "bool_contents", True), ("BYTES", "bytes_contents", b"")],
)
def test_very_many_values_are_not_read_one_by_one(datatype: str, field: str, value: object) -> None:
    count = (1 << 20) + 1
    request = pb.ModelInferRequest()
    tensor = request.inputs.add(name="x", datatype=datatype, shape=[count])
    getattr(tensor.contents, field).extend([value] * count)
    with pytest.raises(TensorError, match=r"lists 1048577 values.* raw_input_contents"):
        list(oip.inputs_of(request))


def request_with(*tensors: dict[str, Any], raw: tuple[bytes, ...] = ()) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(raw_input_contents=raw)
    for tensor in tensors:
        request.inputs.add(**tensor)
    return request


X = {"name": "x", "datatype": "UINT8", "shape": [1]}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (request_with(X), "'x' has no contents; send the input in raw_input_contents"),
        (request_with(X, raw=(b"1", b"2")), "1 inputs came with 2 raw contents"),
        (request_with(X, X, raw=(b"1",)), "2 inputs came with 1 raw contents"),
        (request_with({**X, "shape": [-1]}, raw=(b"1",)), "negative size"),
        (request_with({**X, "shape": [1] * 65}, raw=(b"1",)), "'x' has 65 dimensions"),
    ],
)
def test_inputs_that_cannot_be_read(request_: pb.ModelInferRequest, message: str) -> None:
    with pytest.raises(TensorError, match=message):
        list(oip.inputs_of(request_))


def test_outputs_are_found_by_name() -> None:
    response = pb.ModelInferResponse()
    array = np.array([[0.25, 0.75]], np.float32)
    oip.add_output(response, "probabilities", array)
    oip.add_bytes_output(response, "labels", [b"cat", b"dog"], shape=[1, 2])
    np.testing.assert_array_equal(oip.output_array(response, "probabilities"), array)
    assert oip.output_elements(response, "labels") == [b"cat", b"dog"]
    for read in (oip.output_array, oip.output_elements):
        with pytest.raises(TensorError, match="no raw output 'scores'"):
            read(response, "scores")


def test_outputs_without_contents_or_of_another_size() -> None:
    response = pb.ModelInferResponse()
    oip.add_output(response, "a", np.zeros(3, np.uint8))
    response.outputs.add(name="b", datatype="UINT8", shape=[1])
    with pytest.raises(TensorError, match="no raw output 'b'"):
        oip.output_array(response, "b")
    response.raw_output_contents[0] = to_raw(np.zeros(2, np.uint8))
    with pytest.raises(TensorError, match="takes 3 bytes, 2 were sent"):
        oip.output_array(response, "a")

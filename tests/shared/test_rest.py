import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.shared import rest
from hybridge.shared.errors import HybridgeError, RequestError, TensorError
from hybridge.shared.oip import InferRequest, InferResponse, RequestedOutput
from hybridge.shared.rest import decode_request, encode_response
from hybridge.shared.tensor import DTYPES


def decode(body: bytes, header_bytes: int | None = None) -> InferRequest:
    return decode_request(body, header_bytes=header_bytes, model_name="m", model_version="")


def tensor(datatype: str, shape: list[int], data: Any, **more: Any) -> bytes:
    one = {"name": "x", "datatype": datatype, "shape": shape, "data": data, **more}
    return json.dumps({"inputs": [one]}).encode()


@pytest.mark.parametrize(
    ("datatype", "dtype", "data"),
    [
        ("UINT8", "u1", [0, 255, 7, 1]),
        ("INT64", "i8", [-(1 << 63), (1 << 63) - 1, 0, 1]),
        ("UINT64", "u8", [(1 << 64) - 1, (1 << 63), 0, 1]),
        ("FP32", "f4", [0.1, -1e30, 3, 1]),
        ("FP16", "f2", [0.5, -2, 3, 1]),
        ("FP64", "f8", [0.1, 1e300, 3, 1]),
        ("BOOL", "?", [True, False, 1, 0]),
    ],
)
def test_lists_flat_or_nested(datatype: str, dtype: str, data: list[Any]) -> None:
    for shown in (data, [data[:2], data[2:]]):
        (one,) = decode(tensor(datatype, [2, 2], shown)).inputs
        np.testing.assert_array_equal(one.array(), np.array(data, dtype).reshape(2, 2))


def test_texts() -> None:
    (one,) = decode(tensor("BYTES", [2], ["abc", "déf"])).inputs
    assert one.elements() == [b"abc", "déf".encode()]


def test_binary_tensors_lie_behind_the_json_in_order() -> None:
    header = json.dumps(
        {
            "id": "7",
            "parameters": {"timeout": 5, "latency_budget_ms": 1.5, "binary_data_output": True},
            "inputs": [
                {"name": "a", "datatype": "UINT8", "shape": [2],
                 "parameters": {"binary_data_size": 2}},
                {"name": "b", "datatype": "FP32", "shape": [1], "data": [2.5]},
                {"name": "c", "datatype": "UINT8", "shape": [3],
                 "parameters": {"binary_data_size": 3}},
            ],
        }
    ).encode()  # fmt: skip
    request = decode(header + b"\1\2\3\4\5", len(header))
    assert [one.array().tolist() for one in request.inputs] == [[1, 2], [2.5], [3, 4, 5]]
    assert request.id == "7"
    assert request.parameters["latency_budget_ms"] == 1.5


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no"),
        (b"{}", "inputs"),
        (b"[1]", "object"),
        (b"[" * 200_000, "JSON"),
        (b'{"inputs": [{"name": "x"}]}', "datatype"),
        (b'{"inputs": [{"name": "\xff"}]}', "JSON"),
        (tensor("UINT8", [1], [256]), "cannot"),
        (tensor("UINT8", [1], [-1]), "cannot"),
        (tensor("INT8", [1], [1e3]), "no INT8"),
        (tensor("UINT8", [1], [1.5]), "no UINT8"),
        (tensor("UINT8", [1], ["1"]), "no UINT8"),
        (tensor("UINT8", [1], [None]), "no UINT8"),
        (tensor("UINT8", [1], [1 << 70]), "no UINT8"),
        (tensor("FP32", [1], [1e300]), "cannot"),
        (tensor("FP32", [2], [[1], [1, 2]]), "inhomogeneous"),
        (tensor("FP32", [-1], [1]), "negative"),
        (tensor("BYTES", [1], [5]), "texts"),
        (tensor("COMPLEX", [1], [1]), "COMPLEX"),
        (tensor("UINT8", [1], None), "neither"),
        (tensor("UINT8", [1], [1], parameters={"binary_data_size": 0}), "both|and in binary"),
        (tensor("UINT8", [1], None, parameters={"binary_data_size": 1}), "0 came"),
        (tensor("UINT8", [1], None, parameters={"binary_data_size": -1}), "-1 bytes"),
        (tensor("UINT8", [1], None, parameters={"binary_data_size": True}), "True bytes"),
        (tensor("UINT8", [1], None, parameters={"binary_data_size": 1 << 31}), "0 came"),
        (tensor("UINT8", [1], [1], parameters={"x": [1]}), "parameters"),
    ],
)
def test_what_is_no_request_is_told_so(body: bytes, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        decode(body)


def test_data_of_another_size_than_the_shape() -> None:
    (one,) = decode(tensor("UINT8", [3], [1, 2])).inputs
    with pytest.raises(TensorError, match="takes 3 bytes"):
        one.array()


def test_headers_that_lie() -> None:
    body = tensor("UINT8", [1], [1])
    for header_bytes in (len(body) + 1, -1, 1 << 31):
        with pytest.raises(RequestError, match="header of"):
            decode(body, header_bytes)
    with pytest.raises(RequestError, match="behind the last"):
        decode(body + b"more", len(body))


def test_long_json_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "MAX_JSON_BYTES", 100)
    with pytest.raises(RequestError, match="at most 100"):
        decode(tensor("UINT8", [1], [1] * 200))


@given(st.binary(max_size=300), st.none() | st.integers(-10, 400))
def test_any_bytes(body: bytes, header_bytes: int | None) -> None:
    with pytest.raises(HybridgeError):
        decode(body, header_bytes)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(width=32) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
TENSORS = st.fixed_dictionaries(
    {
        "name": st.text(max_size=3) | VALUES,
        "datatype": st.sampled_from([*DTYPES, "BYTES"]),
        "shape": st.lists(st.integers(-1, 4), max_size=3) | VALUES,
    },
    optional={
        "data": VALUES,
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size", "classification"]), VALUES
        ),
    },
)


@given(st.lists(TENSORS, max_size=3), st.binary(max_size=20))
def test_any_json_is_read_or_refused(tensors: list[Any], behind: bytes) -> None:
    header = json.dumps({"inputs": tensors}).encode()
    with contextlib.suppress(RequestError):
        for one in decode(header + behind, len(header)).inputs:
            if one.datatype == "BYTES":
                one.elements()
            else:
                one.array()


def response() -> InferResponse:
    return InferResponse(
        model_name="m",
        model_version="1",
        id="7",
        parameters={"queue_ms": 0.5},
        outputs={
            "p": np.array([[0.25, 0.75]], np.float32),
            "e": np.array([1, 2, 3], np.int64),
        },
    )


def asked(outputs: list[RequestedOutput], **parameters: Any) -> InferRequest:
    return InferRequest(
        model_name="m", model_version="", id="7", parameters=parameters, inputs=(), outputs=outputs
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_json_has_no_word_for_some_numbers(value: float) -> None:
    made = np.array([1.0, value], np.float32)
    answer = InferResponse(
        model_name="m", model_version="1", id="", parameters={}, outputs={"y": made}
    )
    with pytest.raises(TensorError, match=r"'y' holds NaN or infinity.*in binary"):
        encode_response(answer, asked([]))
    wanted = RequestedOutput(name="y", parameters={"binary_data": True})
    assert encode_response(answer, asked([wanted])).content.endswith(made.tobytes())


def test_answers_are_lists_unless_asked_otherwise() -> None:
    body = encode_response(response(), asked([]))
    assert body.header_bytes is None
    assert json.loads(body.content) == {
        "model_name": "m",
        "model_version": "1",
        "id": "7",
        "parameters": {"queue_ms": 0.5},
        "outputs": [
            {"name": "p", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]},
            {"name": "e", "datatype": "INT64", "shape": [3], "data": [1, 2, 3]},
        ],
    }


@pytest.mark.parametrize(
    ("request_", "binary"),
    [
        (asked([], binary_data_output=True), {"p", "e"}),
        (asked([RequestedOutput(name="e", parameters={"binary_data": True})]), {"e"}),
    ],
)
def test_binary_answers(request_: InferRequest, binary: set[str]) -> None:
    body = encode_response(response(), request_)
    assert body.header_bytes is not None
    told = json.loads(body.content[: body.header_bytes])
    rest_ = body.content[body.header_bytes :]
    for output in told["outputs"]:
        assert ("data" in output) == (output["name"] not in binary)
        if size := output.get("parameters", {}).get("binary_data_size"):
            assert rest_[:size] == response().outputs[output["name"]].tobytes()
            rest_ = rest_[size:]
    assert rest_ == b""


def test_an_output_says_itself_or_its_request_does() -> None:
    body = json.dumps(
        {
            "parameters": {"binary_data_output": True},
            "inputs": [],
            "outputs": [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False}}],
        }
    ).encode()
    request = decode(body)
    assert [output.parameters["binary_data"] for output in request.outputs] == [True, False]

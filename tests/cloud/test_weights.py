import json
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper
from onnx.numpy_helper import from_array

from hybridge.cloud.compiler.external import Externalized, externalize
from hybridge.cloud.weights import SessionSettings, Weights, open_session
from hybridge.shared.errors import BundleError

SIDE = 32
VALUES = np.arange(SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)


def product(side: int = SIDE) -> ModelProto:
    """y = x @ w, with w of 4 KB."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", side])],
        [from_array(VALUES[:side, :side].copy(), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def parts() -> Externalized:
    return externalize({"product": product()})


def test_weights_from_a_file_are_mapped_and_found(tmp_path: Path, parts: Externalized) -> None:
    path = tmp_path / "blob-of-any-name"
    path.write_bytes(parts.weights)
    weights = Weights.from_file(path, table=parts.table)
    assert isinstance(weights.blob, np.memmap)
    one = np.eye(SIDE, dtype=np.float32)
    for shared_memory in (False, True):
        settings = SessionSettings(shared_memory=shared_memory)
        session = open_session(parts.graphs["product"], weights=weights, settings=settings)
        np.testing.assert_array_equal(session.run(None, {"x": one})[0], VALUES)


def test_shared_memory_is_the_memory_of_the_blob(parts: Externalized) -> None:
    blob = np.frombuffer(parts.weights, np.uint8).copy()
    weights = Weights.from_bytes(blob.data, table=parts.table)
    assert np.shares_memory(weights.blob, blob)
    session = open_session(
        parts.graphs["product"], weights=weights, settings=SessionSettings(shared_memory=True)
    )
    one = np.eye(SIDE, dtype=np.float32)
    blob[:] = 0  # no one does this; it shows that the session holds no copy
    assert not session.run(None, {"x": one})[0].any()


def test_a_session_outlives_all_other_names_of_its_weights(parts: Externalized) -> None:
    session = open_session(
        parts.graphs["product"],
        weights=Weights.from_bytes(bytes(parts.weights), table=parts.table),
        settings=SessionSettings(shared_memory=True),
    )
    assert session.weights.tensors.keys() == {"w"}
    np.testing.assert_array_equal(
        session.run(None, {"x": np.eye(SIDE, dtype=np.float32)})[0], VALUES
    )


def test_weights_of_another_graph_are_refused(parts: Externalized) -> None:
    other = externalize({"product": product(side=16)})
    with pytest.raises(BundleError, match="refuses the graph"):
        open_session(
            parts.graphs["product"],
            weights=Weights.from_bytes(other.weights, table=other.table),
        )


def test_a_graph_is_refused_without_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: Externalized
) -> None:
    (tmp_path / "weights").write_bytes(parts.weights)
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would look for the file by itself
    empty = json.dumps({"version": 1, "bytes": 0, "tensors": {}}).encode()
    with pytest.raises(BundleError, match="refuses the graph"):
        open_session(parts.graphs["product"], weights=Weights.from_bytes(b"", table=empty))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "unknown version 2"),
        ({"bytes": 1}, "the table says 1"),
        ({"tensors": {"w": {"offset": 64, "shape": [32, 32], "dtype": "float32"}}}, "lie outside"),
        ({"tensors": {"w": {"offset": -64, "shape": [4], "dtype": "float32"}}}, "lie outside"),
        ({"tensors": {"w": {"offset": 4, "shape": [4], "dtype": "float32"}}}, "lie outside"),
        ({"tensors": {"w": {"offset": 0, "shape": [4], "dtype": "fancy"}}}, "damaged"),
        ({"tensors": {"w": {"shape": [4]}}}, "damaged"),
        ({"tensors": 3}, "damaged"),
    ],
)
def test_a_table_that_lies_is_refused(
    parts: Externalized, change: dict[str, object], message: str
) -> None:
    table = json.dumps(json.loads(parts.table) | change).encode()
    with pytest.raises(BundleError, match=message):
        Weights.from_bytes(parts.weights, table=table)


def test_a_table_that_is_no_json_is_refused(parts: Externalized) -> None:
    with pytest.raises(BundleError, match="damaged weights table"):
        Weights.from_bytes(parts.weights, table=b"{")


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="threads"):
        SessionSettings(threads=0)
    with pytest.raises(ValueError, match="provider"):
        SessionSettings(providers=())

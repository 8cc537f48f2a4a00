import json

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto
from onnx.numpy_helper import from_array

from hybridge.cloud.compiler.external import Externalized, externalize, renamed
from hybridge.cloud.compiler.onnx_graph import Wire, extract_tail, find_cuts
from hybridge.cloud.compiler.onnx_source import copy_of
from hybridge.cloud.weights import ALIGNMENT_BYTES, Weights, open_session
from hybridge.shared.errors import BuildError

from .conftest import Converted
from .graphs import run


@pytest.fixture
def graphs(converted: Converted) -> dict[str, ModelProto]:
    """The whole model and the tails of two cuts."""
    made = {"whole": converted.onnx}
    for cut in find_cuts(converted.onnx)[1:3]:
        wire = Wire(shape=(8, 8, 8), channels_first=True)
        made[cut.tensor] = extract_tail(converted.onnx, cut=cut, wire=wire)
    return made


def weights_of(parts: Externalized) -> Weights:
    return Weights.from_bytes(parts.weights, table=parts.table)


def test_sessions_over_shared_weights_answer_as_the_graphs(graphs: dict[str, ModelProto]) -> None:
    parts = externalize(graphs)
    weights = weights_of(parts)
    rng = np.random.default_rng(0)
    for name, graph in graphs.items():
        session = open_session(parts.graphs[name], weights=weights)
        (value,) = session.get_inputs()
        tensor = rng.random((2, *value.shape[1:]), np.float32)
        np.testing.assert_array_equal(
            session.run(None, {value.name: tensor})[0], run(graph, tensor)
        )


def test_weights_are_stored_once_and_aligned(graphs: dict[str, ModelProto]) -> None:
    parts = externalize(graphs)
    tensors = json.loads(parts.table)["tensors"]
    large = {t.name: t for t in graphs["whole"].graph.initializer if len(t.raw_data) >= 1024}
    assert set(tensors) == set(large)
    assert not [entry for entry in tensors.values() if entry["offset"] % ALIGNMENT_BYTES]
    size = sum(len(tensor.raw_data) for tensor in large.values())
    assert size <= len(parts.weights) < size + ALIGNMENT_BYTES * len(tensors)
    assert len(externalize({"whole": graphs["whole"]}).weights) == len(parts.weights)


def test_equal_contents_share_an_offset(graphs: dict[str, ModelProto]) -> None:
    model = copy_of(graphs["whole"])
    twin = TensorProto()
    twin.CopyFrom(next(t for t in model.graph.initializer if len(t.raw_data) >= 1024))
    original, twin.name = twin.name, "twin"
    model.graph.initializer.append(twin)
    tensors = json.loads(externalize({"a": model}).table)["tensors"]
    assert tensors["twin"] == tensors[original]


def test_the_same_graphs_are_the_same_bytes(graphs: dict[str, ModelProto]) -> None:
    assert externalize(graphs) == externalize(dict(reversed(graphs.items())))


def test_small_tensors_stay_inline_and_graphs_hold_no_large_ones(
    graphs: dict[str, ModelProto],
) -> None:
    before = graphs["whole"].SerializeToString(deterministic=True)
    slim = onnx.load_from_string(externalize(graphs).graphs["whole"])
    inline = [t for t in slim.graph.initializer if not t.external_data]
    assert inline
    assert all(len(tensor.raw_data) < 1024 for tensor in inline)
    assert graphs["whole"].SerializeToString(deterministic=True) == before


def test_one_name_for_two_weights_is_refused(graphs: dict[str, ModelProto]) -> None:
    other = copy_of(graphs["whole"])
    tensor = next(t for t in other.graph.initializer if len(t.raw_data) >= 1024)
    changed = np.zeros(list(tensor.dims), np.float32)
    tensor.CopyFrom(from_array(changed, tensor.name))
    with pytest.raises(BuildError, match="not the same weights in every graph"):
        externalize(graphs | {"zz": other})


def test_weights_of_other_names_are_stored_once_too(converted: Converted) -> None:
    model = renamed(converted.onnx, "other/")
    assert all(tensor.name.startswith("other/") for tensor in model.graph.initializer)
    tensor = np.random.default_rng(1).random((2, 3, 16, 16), np.float32)
    np.testing.assert_array_equal(run(model, tensor), run(converted.onnx, tensor))
    both = externalize({"one": converted.onnx, "other": model})
    assert len(both.weights) == len(externalize({"one": converted.onnx}).weights)

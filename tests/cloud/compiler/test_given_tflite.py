from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from hybridge.cloud.compiler.given_tflite import given_tflite
from hybridge.cloud.compiler.litert import Runner
from hybridge.cloud.compiler.tflite_graph import load, save
from hybridge.devices.litert import LiteRtModel
from hybridge.shared.errors import BuildError
from hybridge.shared.preprocess import PreprocessSpec

from .conftest import SIZE_PX, Converted

SPEC = PreprocessSpec(size_px=SIZE_PX)
Save = Callable[[bytes], Path]


@pytest.fixture
def saved(tmp_path: Path) -> Save:
    def save_light(model: bytes) -> Path:
        (tmp_path / "light.tflite").write_bytes(model)
        return tmp_path / "light.tflite"

    return save_light


def changed(model: bytes, change: Callable[[Any], object]) -> bytes:
    tree = load(model)
    change(tree)
    return save(tree)


def test_a_sound_file_is_taken_as_it_is(converted: Converted, saved: Save) -> None:
    assert given_tflite(saved(converted.float32), SPEC) == converted.float32


def test_a_file_without_signatures_gets_one(converted: Converted, saved: Save) -> None:
    bare = changed(converted.float32, lambda tree: setattr(tree, "signatureDefs", None))
    model = given_tflite(saved(bare), SPEC)
    wanted = Runner(converted.float32).run(converted.tensors[0])
    np.testing.assert_array_equal(Runner(model).run(converted.tensors[0]), wanted)
    np.testing.assert_array_equal(LiteRtModel(model).run(converted.tensors[0]), wanted)


def test_a_picture_of_any_size_includes_the_recipes(converted: Converted, saved: Save) -> None:
    def any_size(tree: Any) -> None:
        (graph,) = tree.subgraphs
        graph.tensors[int(graph.inputs[0])].shapeSignature = [-1, -1, -1, 3]

    model = changed(converted.float32, any_size)
    assert given_tflite(saved(model), SPEC) == model


def twice(tensors: str) -> Callable[[Any], object]:
    def change(tree: Any) -> None:
        (graph,) = tree.subgraphs
        setattr(graph, tensors, [*getattr(graph, tensors)] * 2)

    return change


def of_strings(tree: Any) -> None:
    (graph,) = tree.subgraphs
    graph.tensors[int(graph.outputs[0])].type = schema.TensorType.STRING


def foreign(tree: Any) -> None:
    tree.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
    tree.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    tree.operatorCodes[0].customCode = b"Betainc"


def two_signatures(tree: Any) -> None:
    tree.signatureDefs = [*tree.signatureDefs] * 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (twice("inputs"), "light.tflite has 2 inputs, a light model one"),
        (twice("outputs"), "light.tflite has 2 outputs, a light model one"),
        (of_strings, "outputs may be float32, int8, uint8, not tensor type 5"),
        (foreign, "light.tflite: operators Betainc are not built into LiteRT .*hybridge distill"),
        (two_signatures, "has the signatures .*, .*; export it with one"),
    ],
)
def test_what_no_light_model_is_says_what_to_do(
    converted: Converted, saved: Save, change: Callable[[Any], object], said: str
) -> None:
    with pytest.raises(BuildError, match=said):
        given_tflite(saved(changed(converted.float32, change)), SPEC)


def test_pictures_of_another_size_are_named(converted: Converted, saved: Save) -> None:
    other = PreprocessSpec(size_px=SIZE_PX + 1)
    with pytest.raises(BuildError, match=rf"takes \[1, {SIZE_PX}, .*the recipe makes .*size_px"):
        given_tflite(saved(converted.float32), other)


@pytest.mark.parametrize(
    "content",
    [b"", b"not a model at all", b"TFL3 nothing of the kind" * 50, b"\x00\x00\x00\x40TFL3" * 9],
    ids=["empty", "text", "identifier misplaced", "table out of bounds"],
)
def test_what_is_no_tflite_says_so(saved: Save, content: bytes) -> None:
    with pytest.raises(BuildError, match=r"light\.tflite is no TFLite model, or was cut off"):
        given_tflite(saved(content), SPEC)


def test_a_file_that_was_cut_off_says_so(converted: Converted, saved: Save) -> None:
    whole = converted.float32
    for kept in (9, len(whole) // 4, len(whole) // 2):
        with pytest.raises(BuildError, match=r"light\.tflite is no TFLite model, or was cut off"):
            given_tflite(saved(whole[:kept]), SPEC)

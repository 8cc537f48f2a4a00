"""Keras models and SavedModels: both roads from them, and what they must not do."""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from hybridge.cloud.compiler.conversion import TENSORFLOW, routes_of, take_route, to_onnx
from hybridge.cloud.compiler.litert import relative_error
from hybridge.cloud.compiler.quiet import quiet
from hybridge.cloud.compiler.sources import open_source
from hybridge.cloud.compiler.tensorflow_source import freeze
from hybridge.cloud.compiler.untrusted import check_tensorflow_graph
from hybridge.shared.errors import BuildError

from .conftest import CLASSES, SHAPE, make_tensors
from .graphs import run

KINDS = ("net.keras", "net.h5", "saved")


def make_keras(*more: Any) -> Any:
    """A small net with a depthwise part, a norm, and enough weights for the cloud's road."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    decisive = keras.initializers.RandomNormal(stddev=20)
    return keras.Sequential(
        [
            keras.Input(SHAPE, name="picture"),
            layers.Conv2D(64, 3, strides=2, padding="same", activation="relu6"),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.BatchNormalization(),
            layers.Conv2D(64, 3, strides=2, activation="relu"),
            *more,
            layers.GlobalAveragePooling2D(),
            layers.Dense(CLASSES, activation="softmax", kernel_initializer=decisive),
        ]
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras")
    model = make_keras()
    with quiet("saving"):
        model.save(folder / "net.keras")
        model.save(folder / "net.h5")
        model.export(folder / "saved", format="tf_saved_model")
    return folder


@pytest.fixture(scope="module")
def answers() -> Any:
    made = [make_keras()(tensor).numpy() for tensor in make_tensors(2)]
    assert relative_error(*made) > 0.01  # or nothing would show that a road went wrong
    return made


@pytest.mark.parametrize("name", KINDS)
def test_a_device_gets_what_tensorflow_makes(saved: Path, answers: Any, name: str) -> None:
    source, tensors = open_source(str(saved / name)), make_tensors(2)
    made = take_route(
        routes_of(source, tensors, lambda: pytest.fail("needs no ONNX")), tensors, what="light"
    )
    assert (made.conversion.route, made.conversion.failed) == (TENSORFLOW, {})
    assert made.conversion.error < 1e-4


@pytest.mark.parametrize("name", KINDS)
def test_the_cloud_gets_onnx_of_any_batch(saved: Path, answers: Any, name: str) -> None:
    model = to_onnx(open_source(str(saved / name)), shape=SHAPE)
    made = run(model, np.concatenate(make_tensors(2)))
    assert relative_error(made, np.concatenate(answers)) < 1e-4
    assert {"Transpose", "Conv"} <= {node.op_type for node in model.graph.node}
    assert all(
        node.input[0] not in {t.name for t in model.graph.initializer}
        for node in model.graph.node
        if node.op_type == "Transpose"
    )


def test_code_in_a_layer_is_refused(tmp_path: Path) -> None:
    done = tmp_path / "done"
    file, path = tmp_path / "lambda.keras", str(done)
    # Such code travels without the imports of its module.
    harmful = keras.layers.Lambda(
        lambda x: (open(path, "w").close(), x)[1],  # noqa: PTH123
        output_shape=(3, 3, 64),
    )
    model = make_keras(harmful)
    done.unlink(missing_ok=True)
    with quiet("saving"):
        model.save(file)
    with pytest.raises(BuildError, match=r"lambda\.keras holds a .ambda.*allow_pickle = true"):
        open_source(str(file))
    assert not done.exists()
    freeze(file, shape=SHAPE, items=1, allow_pickle=True)
    assert done.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("keras.utils", "get_file"), ("keras.layers", "StringLookup")],
)
def test_other_peoples_classes_are_refused(
    saved: Path, tmp_path: Path, module: str, name: str
) -> None:
    file = tmp_path / "other.keras"
    with zipfile.ZipFile(saved / "net.keras") as source, zipfile.ZipFile(file, "w") as target:
        config = json.loads(source.read("config.json"))
        config["config"]["layers"][1] |= {"module": module, "class_name": name}
        target.writestr("config.json", json.dumps(config))
        for member in ("metadata.json", "model.weights.h5"):
            target.writestr(member, source.read(member))
    with pytest.raises(BuildError, match=rf"other\.keras .*{name}"):
        open_source(str(file))


def test_weights_in_other_files_are_refused(saved: Path, tmp_path: Path) -> None:
    file = tmp_path / "links.h5"
    file.write_bytes((saved / "net.h5").read_bytes())
    with h5py.File(file, "a") as weights:
        weights["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(BuildError, match="'elsewhere' points to the file '/etc/passwd'"):
        open_source(str(file))


@pytest.mark.parametrize("operator", ["WriteFile", "ReadFile"])
def test_a_saved_model_touches_no_file(tmp_path: Path, operator: str) -> None:
    done, known = tmp_path / "done", tmp_path / "known"
    known.write_text("1")

    def call(picture: Any) -> dict[str, Any]:
        if operator == "WriteFile":
            tf.raw_ops.WriteFile(filename=str(done), contents="x")
        extra = 0.0
        if operator == "ReadFile":
            extra = tf.strings.to_number(tf.io.read_file(str(known)))
        return {"answer": tf.reduce_mean(picture, (1, 2)) + extra}

    module = tf.Module()
    module.call = tf.function(call, input_signature=[tf.TensorSpec([None, *SHAPE], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.call)
    with pytest.raises(BuildError, match=f"operator {operator} reaches outside the model"):
        freeze(tmp_path / "saved", shape=SHAPE, items=1)
    assert not done.exists()


def test_checkpoints_are_for_saving_alone(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec([1], tf.float32)])
    def call(tensor: Any) -> None:
        tf.raw_ops.SaveV2(
            prefix="anywhere", tensor_names=["x"], shape_and_slices=[""], tensors=[tensor]
        )

    definition = call.get_concrete_function().graph.as_graph_def()
    check_tensorflow_graph(definition, tmp_path, saving=True)
    with pytest.raises(BuildError, match="operator SaveV2 reaches outside the model"):
        check_tensorflow_graph(definition, tmp_path)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    model = make_keras()
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * np.nan, bias])
    with quiet("saving"):
        model.save(tmp_path / "nan.keras")
    with pytest.raises(BuildError, match=r"nan\.keras: weights .* hold NaN"):
        freeze(tmp_path / "nan.keras", shape=SHAPE, items=1)


def test_weights_alone_are_no_model(saved: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "weights.h5", "w") as weights:
        weights["kernel"] = np.zeros(3)
    with pytest.raises(BuildError, match="holds weights without a model"):
        open_source(str(tmp_path / "weights.h5"))


@pytest.mark.parametrize("name", ["keras", "h5py"])
def test_what_is_not_installed_is_named(
    saved: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BuildError, match=rf'{name}.*pip install "hybridge\[keras\]"'):
        open_source(str(saved / "net.keras"))


def test_a_large_keras_model_needs_the_extra(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(str(saved / "net.keras"))
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(
        BuildError, match=r'tf2onnx.*"hybridge\[keras\]".*export the model to .onnx'
    ):
        source.more_tools()

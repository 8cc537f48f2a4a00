"""Keras models and SavedModels as frozen TensorFlow graphs, and what is made of those.

A frozen graph has no variables left; the TFLite for the device and the ONNX for the cloud both come
from it. TensorFlow is loaded only by those who bring such models.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, helper
from onnx.numpy_helper import from_array

from ...shared.errors import BuildError
from .litert import SIGNATURE, Floats, Tensor
from .quiet import quiet
from .untrusted import check_keras, check_saved_model, check_tensorflow_graph, require

OPSET = 18
_LARGE_VALUES = 16_384  # vectors of norms stay: tf2onnx folds them
_SAVED_MODEL = "saved_model.pb"


@dataclass(frozen=True)
class FrozenGraph:
    """A graph without variables: what it takes and gives, by name and in its own order."""

    function: Any = field(repr=False)
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, tensor: Floats) -> list[Tensor]:
        """The outputs for the picture alone, float32 [1, h, w, c]."""
        import tensorflow as tf

        with quiet("running of the TensorFlow model"):
            return [np.asarray(each) for each in self.function(tf.constant(tensor))]


def freeze(
    file: Path, *, shape: tuple[int, int, int], items: int | None, allow_pickle: bool = False
) -> FrozenGraph:
    """The graph of a .keras or .h5 file or of a SavedModel folder, for `items` pictures at once.

    `shape`, (h, w, c), is what a picture's dynamic sizes become; without `items` the batch is
    dynamic. BuildError if the file could execute something, or does not load.
    """
    if file.is_dir():
        check_saved_model(file / _SAVED_MODEL)
    else:
        check_keras(file, allow_pickle=allow_pickle)
    _require_tensorflow()
    with quiet(f"loading of {file.name}"):
        import tensorflow as tf
        from tensorflow.python.framework.convert_to_constants import (
            convert_variables_to_constants_v2,
        )

        specs, names, call = (
            _saved_model(file) if file.is_dir() else _keras_model(file, allow_pickle=allow_pickle)
        )
        signature = [_fixed(spec, shape=shape, items=items) for spec in specs]
        function = tf.function(call, input_signature=signature).get_concrete_function()
        frozen = convert_variables_to_constants_v2(function)
        check_tensorflow_graph(frozen.graph.as_graph_def(), file)
        _refuse_nan(frozen, file)
    return FrozenGraph(frozen, tuple(spec.name for spec in signature), names)


def to_tflite(graph: FrozenGraph) -> bytes:
    """Float TFLite of built-in operators with one signature; for a graph of one picture."""
    with quiet("conversion by TensorFlow's converter"):
        import tensorflow as tf

        converter = tf.lite.TFLiteConverter.from_concrete_functions([graph.function])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        return _signed(bytes(converter.convert()))


def to_onnx(graph: FrozenGraph) -> ModelProto:
    """ONNX of a graph, by tf2onnx, which is never shown a weight.

    With its weights in the graph tf2onnx holds them a dozen times (ResNet50, 102 MB: 8.1 GB at its
    peak); so they go in as inputs, and come back as what they are afterwards.
    """
    with quiet("conversion by tf2onnx"):
        tf2onnx = require("tf2onnx")
        definition, weights = _without_weights(graph.function.graph.as_graph_def())
        taken = dict(zip((t.name for t in graph.function.inputs), graph.inputs, strict=True))
        given = dict(zip((t.name for t in graph.function.outputs), graph.outputs, strict=True))
        model, _ = tf2onnx.convert.from_graph_def(
            definition,
            input_names=[*taken, *weights],
            output_names=list(given),
            opset=OPSET,
            tensors_to_rename=taken | given,
        )
        return _with_weights(model, weights)


def _require_tensorflow() -> None:
    backend = require("keras").backend.backend()
    if backend != require("tensorflow").__name__:
        raise BuildError(
            f"Keras runs on {backend!r} here; unset KERAS_BACKEND or set it to tensorflow"
        )


_Loaded = tuple[list[Any], tuple[str, ...], Callable[..., list[Any]]]
"""What a model takes, the names of what it gives, and a function that gives it in that order."""


def _keras_model(file: Path, *, allow_pickle: bool) -> _Loaded:
    import keras
    import tensorflow as tf

    model = keras.saving.load_model(file, compile=False, safe_mode=not allow_pickle)
    specs = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in model.inputs]
    single = len(specs) == 1

    def call(*tensors: Any) -> list[Any]:
        made = model(tensors[0] if single else list(tensors), training=False)
        return list(tf.nest.flatten(made))

    outputs = tf.nest.flatten(model.outputs)
    return specs, tuple(_plain(t.name) for t in outputs), call


def _saved_model(folder: Path) -> _Loaded:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    if SIGNATURE not in loaded.signatures:
        known = ", ".join(loaded.signatures) or "none"
        raise BuildError(
            f"{folder.name} has no signature {SIGNATURE!r} (it has {known}); export it with "
            "Keras' model.export or with signatures="
        )
    signature = loaded.signatures[SIGNATURE]
    taken = signature.structured_input_signature[1]
    specs = [tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in taken.items()]
    names = tuple(sorted(signature.structured_outputs))

    def call(*tensors: Any) -> list[Any]:
        made = signature(**dict(zip(taken, tensors, strict=True)))
        return [made[name] for name in names]

    # The signature keeps its model alive only through this.
    call.__dict__["model"] = loaded
    return specs, tuple(map(_plain, names)), call


def _plain(name: str) -> str:
    return name.partition(":")[0].replace("/", "_")


def _fixed(spec: Any, *, shape: tuple[int, int, int], items: int | None) -> Any:
    import tensorflow as tf

    sizes = spec.shape.as_list()
    rest = sizes[1:]
    if len(sizes) == 4:
        rest = [size or wanted for size, wanted in zip(rest, shape, strict=True)]
    if sizes and sizes[0] not in (None, 1):
        raise BuildError(f"the model takes batches of exactly {sizes[0]}; save it with any batch")
    return tf.TensorSpec([items, *rest] if sizes else sizes, spec.dtype, name=_plain(spec.name))


def _refuse_nan(frozen: Any, file: Path) -> None:
    import tensorflow as tf

    for node in frozen.graph.get_operations():
        if node.type == "Const" and node.outputs[0].dtype.is_floating:
            value = tf.make_ndarray(node.get_attr("value"))
            if not np.isfinite(value).all() and np.isnan(value).any():
                raise BuildError(f"{file.name}: weights {node.name!r} hold NaN")


def _signed(model: bytes) -> bytes:
    """A TFLite model with the signature `serving_default`, which frozen graphs come without."""
    from ai_edge_litert import schema_py_generated as schema

    from .tflite_graph import load, save

    tree = load(model)
    graph = tree.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE.encode()
    signature.subgraphIndex = 0
    signature.inputs = [_entry("args_0", graph.inputs[0], schema)]
    signature.outputs = [
        _entry(f"output_{index}", tensor, schema) for index, tensor in enumerate(graph.outputs)
    ]
    tree.signatureDefs = [signature]
    return save(tree)


def _entry(name: str, tensor: int, schema: Any) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), int(tensor)
    return entry


def _without_weights(definition: Any) -> tuple[Any, dict[str, Tensor]]:
    """A graph definition with its large constants as placeholders, and their values by tensor."""
    import tensorflow as tf

    weights: dict[str, Tensor] = {}
    for node in definition.node:
        if node.op != "Const":
            continue
        value = node.attr["value"].tensor
        shape = [dim.size for dim in value.tensor_shape.dim]
        if int(np.prod(shape)) < _LARGE_VALUES or value.dtype != tf.float32.as_datatype_enum:
            continue
        weights[f"{node.name}:0"] = tf.make_ndarray(value)
        node.op = "Placeholder"
        del node.attr["value"]
        node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return definition, weights


def _with_weights(model: ModelProto, weights: dict[str, Tensor]) -> ModelProto:
    """The model with these inputs as initializers; what depends on weights alone is computed."""
    graph = model.graph
    constants = {*weights, *(tensor.name for tensor in graph.initializer)}
    early, late = [], []
    for node in graph.node:
        if constants.issuperset(name for name in node.input if name) and node.input:
            constants.update(node.output)
            early.append(node)
        else:
            late.append(node)
    read = {name for node in late for name in node.input} | {value.name for value in graph.output}
    made = [name for node in early for name in node.output if name in read]
    values = _computed(model, early, weights, made)
    values |= {name: value for name, value in weights.items() if name in read}
    inputs = [value for value in graph.input if value.name not in weights]
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.input[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(late)
    graph.input.extend(inputs)
    graph.initializer.extend(kept)
    graph.initializer.extend(
        from_array(np.ascontiguousarray(value), name) for name, value in values.items()
    )
    return model


def _computed(
    model: ModelProto, nodes: list[NodeProto], weights: dict[str, Tensor], wanted: list[str]
) -> dict[str, Tensor]:
    """What these nodes make of the weights."""
    if not wanted:
        return {}
    read = {name for node in nodes for name in node.input}
    taken = {name: value for name, value in weights.items() if name in read}
    inputs = [value for value in model.graph.input if value.name in taken]
    outputs = [onnx.ValueInfoProto(name=name) for name in wanted]
    constants = [tensor for tensor in model.graph.initializer if tensor.name in read]
    graph = helper.make_graph(nodes, "weights", inputs, outputs, constants)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = onnxruntime.InferenceSession(
        part.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return dict(zip(wanted, session.run(wanted, taken), strict=True))

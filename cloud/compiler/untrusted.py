"""Model files that could execute something when they are loaded, found before anything loads them.

Keras and TensorFlow have safe modes of their own, but those read more than a model needs: classes
of any importable module, vocabularies from anywhere on the disk. So only what is known to be
harmless is let through: Keras' own layers without code inside, TensorFlow operators that touch no
file.
"""

import importlib
import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ...shared.errors import BuildError
from .files import unreadable

_CONFIG = "config.json"
_KERAS_WEIGHTS = "model.weights.h5"
_KERAS_MEMBERS = frozenset({_CONFIG, "metadata.json", _KERAS_WEIGHTS})
_KERAS_KINDS = ("layers", "initializers", "regularizers", "constraints")
_KERAS_MODELS = frozenset({"Functional", "Sequential"})
_KERAS_VALUES = frozenset({"__keras_tensor__", "__tensor__", "__numpy__", "DTypePolicy"})
# They hold code, or read files that the configuration names.
_KERAS_REFUSED = frozenset(
    {
        "Lambda",
        "TorchModuleWrapper",
        "FlaxLayer",
        "JaxLayer",
        "TFSMLayer",
        "StringLookup",
        "IntegerLookup",
        "TextVectorization",
        "HashedCrossing",
        "FeatureSpace",
    }
)
_ALTERNATIVE = (
    "export it to .onnx, or set allow_pickle = true in the recipe if you trust whoever made it"
)

_SAVING = frozenset({"SaveV2", "RestoreV2", "MergeV2Checkpoints"})
_STATE = frozenset(
    {
        "VarHandleOp",
        "VarIsInitializedOp",
        "ReadVariableOp",
        "AssignVariableOp",
        "DisableCopyOnRead",
        "VariableV2",
        "StatefulPartitionedCall",
        "RandomUniform",
        "RandomStandardNormal",
        "TruncatedNormal",
        "Assert",
    }
)
_STATELESS_BUT_OUTSIDE = frozenset(
    {"ReadFile", "MatchingFiles", "PyFuncStateless", "DecodeProtoV2"}
)


def require(name: str) -> Any:
    """A module that only Keras models and SavedModels need; BuildError says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BuildError(
            f'{error}; pip install "hybridge[keras]" brings what Keras models and SavedModels '
            "need, or export the model to .onnx"
        ) from error


def refuse_pickle(file: Path, *, allowed: bool) -> None:
    """BuildError for a file that is unpickled, which runs whatever it says, unless allowed."""
    if not allowed:
        raise BuildError(
            f"{file.name} is a pickle, which may run any code when it is loaded; save the model "
            "with torch.export.save as .pt2, name MODULE:FUNCTION that makes it, or set "
            "allow_pickle = true in the recipe if you trust whoever made it"
        )


def check_keras(file: Path, *, allow_pickle: bool = False) -> None:
    """BuildError if a .keras or .h5 file holds code or names what is not Keras' own."""
    h5py, keras = require("h5py"), require("keras")
    try:
        if file.suffix == ".h5":
            with h5py.File(file) as weights:
                _refuse_links(weights, file)
                config = json.loads(_attribute(weights, file))
        else:
            with zipfile.ZipFile(file) as archive:
                foreign = sorted(set(archive.namelist()) - _KERAS_MEMBERS)
                if foreign:
                    raise BuildError(f"{file.name} holds {foreign[0]!r}, which no model needs")
                config = json.loads(archive.read(_CONFIG))
                with archive.open(_KERAS_WEIGHTS) as member, h5py.File(member) as weights:
                    _refuse_links(weights, file)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise BuildError(f"{file.name} is no Keras model: {error}; save it again") from error
    if not allow_pickle:
        for node in _objects(config):
            _check_object(node, file, keras)


def check_saved_model(file: Path) -> None:
    """BuildError if a SavedModel has operators that touch files, run Python or are unknown."""
    from google.protobuf.message import DecodeError

    saved = require("tensorflow.core.protobuf.saved_model_pb2").SavedModel()
    try:
        saved.ParseFromString(file.read_bytes())
    except OSError as error:
        raise unreadable(file, error) from error
    except DecodeError as error:
        raise BuildError(f"{file} is no SavedModel; export it again") from error
    for graph in saved.meta_graphs:
        check_tensorflow_graph(graph.graph_def, file.parent, saving=True)


def check_tensorflow_graph(definition: Any, file: Path, *, saving: bool = False) -> None:
    """The same for one graph; only where it is `saving` may it write and read checkpoints."""
    from tensorflow.python.framework import op_def_registry

    allowed = _STATE | _SAVING if saving else _STATE
    nodes = [*definition.node]
    for function in definition.library.function:
        nodes += function.node_def
    own = {function.signature.name for function in definition.library.function}
    for kind in sorted({node.op for node in nodes} - own):
        known = op_def_registry.get(kind)
        outside = kind in _STATELESS_BUT_OUTSIDE or kind.endswith("Dataset")
        if known is None:
            raise BuildError(f"{file.name}: operator {kind} is not TensorFlow's own")
        if outside or (known.is_stateful and kind not in allowed):
            raise BuildError(
                f"{file.name}: operator {kind} reaches outside the model; export the model "
                "without it, or as .onnx"
            )


def _attribute(weights: Any, file: Path) -> str:
    config = weights.attrs.get("model_config")
    if config is None:
        raise BuildError(f"{file.name} holds weights without a model; save it with model.save")
    return config.decode() if isinstance(config, bytes) else str(config)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object that a configuration asks for."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for inner in value.values():
            yield from _objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)


def _check_object(node: dict[str, Any], file: Path, keras: Any) -> None:
    name, module = str(node["class_name"]), str(node.get("module") or "keras")
    if name in _KERAS_REFUSED or name == "__lambda__":
        raise BuildError(
            f"{file.name} holds a {name.strip('_')}, which runs code or reads files when it is "
            f"loaded; replace it by Keras' own layers, {_ALTERNATIVE}"
        )
    own = name in _KERAS_VALUES | _KERAS_MODELS or any(_names(keras, name))
    registered = node.get("registered_name") or name
    if not own or module.partition(".")[0] != "keras" or registered != name:
        raise BuildError(
            f"{file.name} needs {module}.{name}, which is not Keras' own; {_ALTERNATIVE}"
        )


def _names(keras: Any, name: str) -> Iterable[bool]:
    """Whether Keras has a class of that name, room by room."""
    for kind in _KERAS_KINDS:
        yield isinstance(getattr(getattr(keras, kind), name, None), type)


def _refuse_links(weights: Any, file: Path) -> None:
    """HDF5 can point to other files on the disk."""
    import h5py

    def look(group: Any) -> None:
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise BuildError(f"{file.name}: {name!r} points to the file {link.filename!r}")
            inner = group[name]
            if isinstance(inner, h5py.Group):
                look(inner)
            elif inner.external or inner.is_virtual:
                raise BuildError(f"{file.name}: {name!r} lies in another file")

    look(weights)

"""A light model that its owner has as .tflite: taken as it is, if it is what devices run."""

import struct
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from ...shared.errors import BuildError
from ...shared.preprocess import PreprocessSpec
from .litert import SIGNATURE, refuse_foreign_operators
from .tflite_graph import IDENTIFIER, load, save

_TYPES = {
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.INT8: "int8",
    schema.TensorType.UINT8: "uint8",
}
_CHANNELS, _ANY = 3, -1
_OTHER = "choose another light model, or train one (hybridge distill)"


def given_tflite(file: Path, spec: PreprocessSpec) -> bytes:
    """The file's bytes; with a signature where it has none, as those of older converters.

    BuildError if it is no classifier of one picture of the recipe's size that LiteRT runs alone.
    """
    model = file.read_bytes()
    damaged = f"{file.name} is no TFLite model, or was cut off; export or copy it again"
    if model[4:8] != IDENTIFIER:
        raise BuildError(damaged)
    try:
        tree = load(model)
        refuse_foreign_operators(model)
    except BuildError as error:
        raise BuildError(f"{file.name}: {error}; {_OTHER}") from error
    # What flatbuffers raises over bytes that are no table of the schema.
    except (struct.error, IndexError, TypeError, ValueError) as error:
        raise BuildError(damaged) from error
    (graph,) = tree.subgraphs
    _check_tensors(file.name, graph, spec)
    signatures = tree.signatureDefs or []
    if len(signatures) > 1:
        names = ", ".join(each.signatureKey.decode() for each in signatures)
        raise BuildError(f"{file.name} has the signatures {names}; export it with one of them")
    if signatures:
        return model
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE.encode(), 0
    signature.inputs = [_named("input", graph.inputs[0])]
    signature.outputs = [_named("output", graph.outputs[0])]
    tree.signatureDefs = [signature]
    return save(tree)


def _check_tensors(name: str, graph: Any, spec: PreprocessSpec) -> None:
    for what, tensors in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        if len(tensors) != 1:
            raise BuildError(
                f"{name} has {len(tensors)} {what}, a light model one: a picture in, a value per "
                f"class out; {_OTHER}"
            )
        tensor = graph.tensors[int(tensors[0])]
        if tensor.type not in _TYPES:
            raise BuildError(
                f"{name}: {what} may be {', '.join(_TYPES.values())}, not tensor type "
                f"{tensor.type}; export it anew"
            )
    taken = graph.tensors[int(graph.inputs[0])]
    declared = taken.shape if taken.shapeSignature is None else taken.shapeSignature
    shape = [] if declared is None else [int(size) for size in declared]
    made = [1, spec.size_px, spec.size_px, _CHANNELS]
    fits = (size in (want, _ANY) for size, want in zip(shape, made, strict=False))
    if len(shape) != len(made) or not all(fits):
        raise BuildError(
            f"{name} takes {shape}, the recipe makes {made} of a picture; set size_px under "
            "[light.preprocessing] to what the model takes"
        )


def _named(name: str, tensor: Any) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), int(tensor)
    return entry

"""Int8 models that take a picture's pixels, where the codes that they begin with are just those."""

from typing import Any

from ...devices.pixel_input import takes_pixels
from ...shared.preprocess import PreprocessSpec
from .tflite_graph import input_quantization, load, picture_of, save


def begins_with_pixels(model: bytes, spec: PreprocessSpec) -> bool:
    """Whether a model first quantizes its picture, to codes that are the pixels less 128."""
    return _to_pixels(load(model), spec) is not None


def on_pixels(model: bytes, spec: PreprocessSpec) -> bytes:
    """A model that begins with pixels without its first operator; any other as it is."""
    tree = load(model)
    first = _to_pixels(tree, spec)
    if first is None:
        return model
    (graph,) = tree.subgraphs
    picture, taken = picture_of(graph), int(first.outputs[0])
    graph.operators = [operator for operator in graph.operators if operator is not first]
    graph.inputs = [taken if tensor == picture else tensor for tensor in map(int, graph.inputs)]
    for entry in (entry for each in tree.signatureDefs or () for entry in each.inputs):
        if int(entry.tensorIndex) == picture:
            entry.tensorIndex = taken
    return save(tree)


def _to_pixels(tree: Any, spec: PreprocessSpec) -> Any | None:
    (graph,) = tree.subgraphs
    operator = input_quantization(tree, graph)
    if operator is None:
        return None
    grid = graph.tensors[int(operator.outputs[0])].quantization
    scale, zero_point = float(grid.scale[0]), int(grid.zeroPoint[0])
    return operator if takes_pixels(spec, scale=scale, zero_point=zero_point) else None

"""What a large model takes beside the picture and gives beside the answer, and which is which."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, ValueInfoProto, helper

from ...shared.errors import BuildError, TensorError
from ...shared.oip import FRAME, LABELS, PICTURE, PIXELS, PROBABILITIES
from ...shared.tensor import Array, TensorSpec, datatype_of
from ..weights import OWN
from .onnx_graph import PIXELS_INPUT, TAIL_INPUT
from .onnx_source import copy_of

_TAKEN_INPUTS = (PICTURE, PIXELS, FRAME, PIXELS_INPUT, TAIL_INPUT)
_TAKEN_OUTPUTS = (PROBABILITIES, LABELS)


@dataclass(frozen=True)
class Outputs:
    """The name of the answer, and the other outputs in the model's order."""

    answer: str
    further: tuple[TensorSpec, ...]


def side_inputs(model: ModelProto, *, picture: str) -> tuple[TensorSpec, ...]:
    """Everything a model takes but its picture; BuildError for what no caller could send."""
    return tuple(_input(value) for value in model.graph.input if value.name != picture)


def _input(value: ValueInfoProto) -> TensorSpec:
    name, kind = value.name, value.type.tensor_type
    if name in _TAKEN_INPUTS or name.startswith(OWN):
        raise BuildError(f"an input named {name!r} would be mistaken for ours; rename it")
    first, *rest = kind.shape.dim or (None,)
    if first is None or first.dim_value not in (0, 1):
        raise BuildError(
            f"input {name!r} must have the pictures as its first axis, as [n, ...] or [1, ...]"
        )
    if not all(dim.dim_value > 0 for dim in rest):
        raise BuildError(f"input {name!r} has sizes that are not fixed; export it with fixed ones")
    shape = tuple(dim.dim_value for dim in rest)
    try:
        datatype = datatype_of(np.zeros(0, helper.tensor_dtype_to_np_dtype(kind.elem_type)))
        return TensorSpec(name, datatype, shape)
    except (KeyError, ValueError, TensorError) as error:
        raise BuildError(f"input {name!r}: {error}") from error


def with_answer_first(model: ModelProto, answer: str) -> ModelProto:
    """The model with that output before its others: whoever wants the answer takes the first."""
    if model.graph.output[0].name == answer:
        return model
    ordered = sorted(model.graph.output, key=lambda value: value.name != answer)
    result = copy_of(model)
    del result.graph.output[:]
    result.graph.output.extend(ordered)
    return result


def name_outputs(made: Mapping[str, Array], *, items: int, classes: int, answer: str) -> Outputs:
    """Which output is the answer, by what a model made of `items` pictures.

    That is the one named `answer`, else the only one, else the only one with a float per class.
    BuildError for an ambiguity, and for an output that callers could not be given.
    """
    if answer:
        if answer not in made:
            raise BuildError(f"the model has no output {answer!r}; it has {', '.join(made)}")
    elif len(made) == 1:
        (answer,) = made
    else:
        fit = [
            name
            for name, array in made.items()
            if array.shape == (items, classes) and array.dtype == np.float32
        ]
        if len(fit) != 1:
            all_ = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in made.items())
            raise BuildError(
                f"{len(fit)} outputs have a value for each of {classes} classes, of {all_}; "
                'name the answer in the recipe: [large] answer = "NAME"'
            )
        (answer,) = fit
    return Outputs(
        answer=answer,
        further=tuple(
            _output(name, array, items=items) for name, array in made.items() if name != answer
        ),
    )


def _output(name: str, array: Array, *, items: int) -> TensorSpec:
    if name in _TAKEN_OUTPUTS or name.startswith(OWN):
        raise BuildError(f"an output named {name!r} would be mistaken for ours; rename it")
    if array.ndim == 0 or len(array) != items:
        raise BuildError(
            f"output {name!r} is {list(array.shape)} for {items} pictures; "
            "its first axis must be the pictures"
        )
    try:
        return TensorSpec(name, datatype_of(array), array.shape[1:])
    except (ValueError, TensorError) as error:
        raise BuildError(f"output {name!r}: {error}") from error

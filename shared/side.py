"""Tensors beside the picture and beside the answer: the same words and checks on edge and cloud.

A model may take further inputs, such as a patient's age beside an MRI, and give further outputs,
such as an embedding. Callers send and ask for them by name, as the protocol has it. Heads never
see them: they go to the cloud as they came, next to the frame.
"""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .errors import TensorError
from .oip import InputTensor
from .tensor import Array, TensorSpec

Tensors = Mapping[str, Array]
"""Arrays [items, *shape] by name."""


def item_bytes(specs: Iterable[TensorSpec]) -> int:
    """What goes up beside each frame."""
    return sum(spec.item_bytes for spec in specs)


def from_text(text: str, spec: TensorSpec) -> Array:
    """One item [*shape] of numbers between spaces or commas; TensorError if they do not fit.

    >>> from_text("63, 1", TensorSpec("patient", "FP32", (2,)))
    array([63.,  1.], dtype=float32)
    """
    words = text.replace(",", " ").split()
    if len(words) != spec.elements:
        raise TensorError(f"{spec} takes {spec.elements} numbers, {len(words)} were given")
    kind = float if spec.dtype.kind == "f" else int
    numbers: list[float] = []
    for word in words:
        try:
            numbers.append(kind(word))
        except ValueError:
            what = "number" if kind is float else "whole number"
            raise TensorError(f"{word!r} is no {what}, and {spec} takes them") from None
    return as_declared(numbers, spec)


def as_declared(values: npt.ArrayLike, spec: TensorSpec) -> Array:
    """Values as one item [*shape] of the declared dtype; TensorError if that changes them.

    They come flat, as [*shape] or as [1, *shape]. Floats are rounded to fewer bits, no more.
    """
    given = np.asarray(values)
    if given.shape not in (spec.shape, (1, *spec.shape), (spec.elements,)):
        raise TensorError(f"{list(given.shape)} does not fit {spec}")
    if given.dtype.kind not in "biuf":
        raise TensorError(f"{given.dtype} are no numbers for {spec}")
    if given.dtype.kind == "f" and not np.isfinite(given).all():
        raise TensorError(f"NaN or infinity, and {spec} takes numbers")
    with np.errstate(all="ignore"):
        item: Array = given.astype(spec.dtype).reshape(spec.shape)
    kept = np.isfinite(item).all() if spec.dtype.kind == "f" else (item.ravel() == given.ravel())
    if not np.all(kept):
        raise TensorError(f"{given.ravel().tolist()} cannot be written as {spec}")
    return item


def joined(parts: Sequence[Tensors]) -> Tensors:
    """The items of several, one after the other."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def items_of(tensors: Tensors, start: int, end: int) -> Tensors:
    """Some of the items."""
    return {name: array[start:end] for name, array in tensors.items()}


def split_inputs(
    inputs: Iterable[InputTensor], *, pictures: Collection[str]
) -> tuple[InputTensor, list[InputTensor]]:
    """The picture in one of its forms, and the rest; TensorError unless there is one picture."""
    sent = list(inputs)
    if len(sent) == 1 and sent[0].name in pictures:
        return sent[0], []
    shown = [tensor for tensor in sent if tensor.name in pictures]
    if len(shown) != 1:
        forms = " or ".join(map(repr, pictures))
        names = ", ".join(repr(tensor.name) for tensor in sent) or "nothing"
        raise TensorError(f"exactly one input must be {forms}; {names} was sent")
    return shown[0], [tensor for tensor in sent if tensor is not shown[0]]


def read_sides(
    sent: Sequence[InputTensor], specs: Sequence[TensorSpec], *, items: int
) -> dict[str, Array]:
    """Each of a model's further inputs, [items, *shape]; TensorError unless all came, as declared.

    A single item may come without the axis of items.
    """
    if not sent and not specs:
        return {}
    by_name = {tensor.name: tensor for tensor in sent}
    known = {spec.name for spec in specs}
    for name in by_name:
        if name not in known:
            raise TensorError(f"input {name!r} is unknown; {_takes(specs)}")
    if len(by_name) != len(sent):
        raise TensorError("an input came twice")
    return {spec.name: _read(by_name.get(spec.name), spec, specs, items=items) for spec in specs}


class Named(Protocol):
    """Whatever has a name."""

    @property
    def name(self) -> str: ...


class Requested(Protocol):
    """An output that a request names."""

    @property
    def name(self) -> str: ...
    @property
    def parameters(self) -> Container[str]: ...


def wanted_outputs(
    requested: Collection[Requested],
    *,
    own: Collection[str],
    specs: Sequence[Named],
) -> tuple[str, ...]:
    """The further outputs a request wants: those it names, all if it names no output at all.

    `own` are the outputs of every model. TensorError for others, and for the classification
    extension, which is not served.
    """
    if not specs and not requested:
        return ()
    further = tuple([spec.name for spec in specs])
    names: list[str] = []
    for output in requested:
        if output.name not in own and output.name not in further:
            there = ", ".join((*own, *further))
            raise TensorError(f"output {output.name!r} is unknown; there are {there}")
        if "classification" in output.parameters:
            raise TensorError("the classification extension is not served; rank probabilities")
        names.append(output.name)
    return tuple(name for name in further if name in names) if names else further


def _read(
    tensor: InputTensor | None, spec: TensorSpec, specs: Sequence[TensorSpec], *, items: int
) -> Array:
    if tensor is None:
        raise TensorError(f"input {spec.name!r} is missing; {_takes(specs)}")
    shapes = [(items, *spec.shape)] + ([spec.shape] if items == 1 else [])
    if tensor.datatype != spec.datatype or tensor.shape not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in reversed(shapes))
        raise TensorError(
            f"input {spec.name!r} must be {spec.datatype} {wanted}, "
            f"not {tensor.datatype} {list(tensor.shape)}"
        )
    array = tensor.array().reshape(items, *spec.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise TensorError(f"input {spec.name!r} holds NaN or infinity")
    return array


def _takes(specs: Sequence[TensorSpec]) -> str:
    if not specs:
        return "this model takes a picture and nothing beside it"
    return f"this model takes {', '.join(map(str, specs))} beside a picture"

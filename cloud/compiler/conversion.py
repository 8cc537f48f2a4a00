"""Roads from a model to float LiteRT: the first that answers as the original does is taken.

Each road is compared with the original, as its owner runs it, on real calibration pictures; what
was tried is recorded in the bundle. The road by ONNX comes last. It alone can end early: what comes
after an operator that no device runs stays in the cloud.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from onnx import ModelProto

from ...shared.errors import BuildError
from ...shared.manifest import Conversion
from .litert import (
    Floats,
    Tensor,
    convert_module,
    refuse_foreign_operators,
    run_module,
    worst_error,
)
from .onnx_fold import with_constant_reshapes
from .onnx_source import export_module, load_model, normalized, onnx_bytes
from .quiet import quiet
from .sources import KINDS, ModelSource
from .tflite_padding import padded_by_zero

LITERT_TORCH = "litert-torch"
TENSORFLOW = "tensorflow"
BY_ONNX = "onnx, litert-torch"

_LARGEST_ERROR = 1e-3
"""Relative to the largest output; float kernels of two runtimes differ by 1e-6 to 1e-4."""


@dataclass(frozen=True)
class DeviceModel:
    """A model, or its part before an operator that no device runs, as float TFLite."""

    model: bytes
    conversion: Conversion


@dataclass(frozen=True)
class Made:
    """What a road gave, the original to compare it with, and what ended it ("": nothing)."""

    model: bytes
    original: Callable[[Floats], Sequence[Tensor]]
    ended_by: str = ""


@dataclass(frozen=True)
class Route:
    """A road by its name; BuildError where it does not lead through."""

    name: str
    make: Callable[[], Made]


def routes_of(
    source: ModelSource, tensors: Sequence[Floats], onnx: Callable[[], ModelProto]
) -> list[Route]:
    """The roads for a model, in the order in which they are tried.

    `tensors` are real inputs, float32 [1, h, w, c]; `onnx` gives the model as ONNX.
    """
    _, height, width, channels = tensors[0].shape
    shape = (height, width, channels)

    def by_litert_torch() -> Made:
        module = source.module
        if module is None or source.example:
            raise BuildError("takes more than a picture")
        return Made(convert_module(module, shape=shape), run_module(module))

    def by_tensorflow() -> Made:
        from .tensorflow_source import freeze, to_tflite

        if source.file is None:
            raise BuildError("no file")
        graph = freeze(source.file, shape=shape, items=1, allow_pickle=source.allow_pickle)
        if len(graph.inputs) > 1:
            raise BuildError("takes more than a picture")
        return Made(to_tflite(graph), graph.run)

    def by_onnx() -> Made:
        from .onnx_torch import torch_from_onnx

        made = torch_from_onnx(onnx(), tensors)
        model = convert_module(made.module, shape=shape, channels_last=made.channels_last)
        return Made(model, made.original(), made.ended_by)

    routes = [Route(BY_ONNX, by_onnx)]
    if source.from_torch:
        routes.insert(0, Route(LITERT_TORCH, by_litert_torch))
    elif source.from_tensorflow:
        routes.insert(0, Route(TENSORFLOW, by_tensorflow))
    return routes


def to_onnx(source: ModelSource, *, shape: tuple[int, int, int]) -> ModelProto:
    """A source as ONNX with a dynamic batch where that can be."""
    if source.suffix == ".onnx" and source.file is not None:
        return with_constant_reshapes(load_model(source.file, shape=shape))
    if source.module is not None:
        return export_module(source.module, shape=shape, example=source.example)
    if source.from_tensorflow and source.file is not None:
        from . import tensorflow_source

        graph = tensorflow_source.freeze(
            source.file, shape=shape, items=None, allow_pickle=source.allow_pickle
        )
        return normalized(tensorflow_source.to_onnx(graph))
    raise BuildError(
        "a TFLite model is for devices and has no tails for the cloud; name the model it was made "
        f"from: {KINDS}"
    )


def exported(source: ModelSource, *, shape: tuple[int, int, int]) -> bytes:
    """The source, opened here if it is not, as the bytes of an ONNX model."""
    return onnx_bytes(to_onnx(source.opened(), shape=shape))


def converted(source: ModelSource, tensors: Sequence[Floats], *, what: str) -> bytes:
    """The source, opened here if it is not, as a `DeviceModel` in MessagePack."""
    source = source.opened()
    _, height, width, channels = tensors[0].shape
    shape = (height, width, channels)
    routes = routes_of(source, tensors, lambda: to_onnx(source, shape=shape))
    return msgspec.msgpack.encode(take_route(routes, tensors, what=what))


def served_whole(why: BuildError) -> Conversion:
    """The record of a model that no road brought to a device."""
    return Conversion(route="none", error=0.0, pictures=0, ended_by=str(why).partition("\n")[0])


def take_route(routes: Sequence[Route], tensors: Sequence[Floats], *, what: str) -> DeviceModel:
    """The first road that is exact on these tensors; BuildError says what ended each of them."""
    failed: dict[str, str] = {}
    for route in routes:
        # The one place: converters document no errors, so quiet makes a BuildError of whatever they
        # raise, with their own words, and the next road is tried.
        try:
            with quiet(f"the road by {route.name}"):
                made = route.make()
                refuse_foreign_operators(made.model)
                model = padded_by_zero(made.model)
                error = worst_error(model, made.original, tensors)
        except BuildError as failure:
            failed[route.name] = str(failure).partition("\n")[0]
            continue
        if not error <= _LARGEST_ERROR:
            failed[route.name] = (
                f"is {error:.2g} off the original on real pictures, {_LARGEST_ERROR:g} is allowed"
            )
            continue
        conversion = Conversion(
            route=route.name,
            error=float(f"{error:.2g}"),
            pictures=len(tensors),
            ended_by=made.ended_by,
            failed=failed,
        )
        return DeviceModel(model, conversion)
    tried = "; ".join(f"{name}: {why}" for name, why in failed.items())
    raise BuildError(f"no way to bring the {what} model to a device. {tried}")

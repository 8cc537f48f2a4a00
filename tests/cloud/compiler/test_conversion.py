import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import Tensor, nn

from hybridge.cloud.compiler.conversion import (
    BY_ONNX,
    LITERT_TORCH,
    Made,
    Route,
    routes_of,
    served_whole,
    take_route,
    to_onnx,
)
from hybridge.cloud.compiler.litert import Runner, refuse_foreign_operators, run_module
from hybridge.cloud.compiler.onnx_source import export_module
from hybridge.cloud.compiler.sources import ModelSource
from hybridge.cloud.compiler.tflite_graph import load, save
from hybridge.shared.errors import BuildError

from .conftest import SHAPE, Converted, make_net, make_tensors


class Spectrum(nn.Module):
    """A convolution, then a Fourier transform, which no device runs, then a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU())
        self.classify = nn.Linear(4, 5)

    def forward(self, pictures: Tensor) -> Tensor:
        seen = torch.fft.fft(self.stem(pictures)).real
        logits: Tensor = self.classify(seen.mean((2, 3)))
        return logits


def source_of(module: nn.Module) -> ModelSource:
    return ModelSource(module=module, file=None, sha256="")


def routes(module: nn.Module) -> list[Route]:
    return routes_of(source_of(module), make_tensors(2), lambda: export_module(module, shape=SHAPE))


def test_torch_goes_straight_to_litert(converted: Converted) -> None:
    made = take_route(routes(converted.module), converted.tensors[:2], what="light")
    conversion = made.conversion
    assert (conversion.route, conversion.pictures) == (LITERT_TORCH, 2)
    assert (conversion.ended_by, conversion.failed) == ("", {})
    assert 0 < conversion.error < 1e-5


def test_an_operator_that_no_device_runs_ends_a_torch_model_there() -> None:
    torch.manual_seed(0)
    module = Spectrum().eval()
    tensors = make_tensors(2)
    made = take_route(routes(module), tensors, what="large")
    assert made.conversion.route == BY_ONNX
    assert "DFT" in made.conversion.ended_by
    assert set(made.conversion.failed) == {LITERT_TORCH}
    (head,) = Runner(made.model).outputs(tensors[0])
    (wanted,) = run_module(module.stem)(tensors[0])
    np.testing.assert_allclose(np.squeeze(head), np.squeeze(wanted), atol=1e-5)


def test_what_no_road_brings_to_a_device_names_every_road() -> None:
    class Unsteady(nn.Module):
        def forward(self, pictures: Tensor) -> Tensor:
            return pictures if pictures.sum() > 0 else -pictures

    said = r"no way to bring the light model.*litert-torch: conversion.*onnx.*: export to ONNX"
    with pytest.raises(BuildError, match=said) as raised:
        take_route(routes(Unsteady().eval()), make_tensors(1), what="light")
    record = served_whole(raised.value)
    assert record.route == "none"
    assert "export to ONNX" in record.ended_by


def test_a_road_that_is_not_exact_is_not_taken(converted: Converted) -> None:
    original = run_module(converted.module)
    wrong = run_module(make_net(seed=1))
    made = take_route(
        [
            Route("other weights", lambda: Made(converted.float32, wrong)),
            Route("broken", lambda: Made(b"no model", original)),
            Route("right", lambda: Made(converted.float32, original)),
        ],
        converted.tensors[:2],
        what="light",
    )
    assert made.conversion.route == "right"
    assert "off the original" in made.conversion.failed["other weights"]
    assert "not a TFLite model" in made.conversion.failed["broken"]


@pytest.mark.parametrize(
    ("code", "custom", "said"),
    [
        (schema.BuiltinOperator.CUSTOM, b"FlexErf", "FlexErf"),
        (schema.BuiltinOperator.STABLEHLO_ADD, None, "STABLEHLO_ADD"),
    ],
)
def test_operators_that_are_not_built_in_are_refused(
    converted: Converted, code: int, custom: bytes | None, said: str
) -> None:
    refuse_foreign_operators(converted.float32)
    tree = load(converted.float32)
    first = tree.operatorCodes[0]
    first.builtinCode = code
    first.deprecatedBuiltinCode = min(code, 127)
    first.customCode = custom
    with pytest.raises(BuildError, match=f"operators {said} are not built into LiteRT"):
        refuse_foreign_operators(save(tree))


def test_a_tflite_file_is_no_large_model() -> None:
    with pytest.raises(BuildError, match="has no tails for the cloud"):
        to_onnx(ModelSource(module=None, file=None, sha256=""), shape=SHAPE)

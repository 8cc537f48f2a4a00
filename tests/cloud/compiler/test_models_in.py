"""Large models of every kind on their whole way: what is cut of them, and what is recorded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hybridge.cloud.compiler.cache import StepCache
from hybridge.cloud.compiler.conversion import BY_ONNX, LITERT_TORCH, TENSORFLOW
from hybridge.cloud.compiler.parts import LargeParts, light_part
from hybridge.cloud.compiler.pictures import open_pictures
from hybridge.cloud.compiler.quiet import quiet
from hybridge.cloud.compiler.recipe import ModelRecipe
from hybridge.cloud.compiler.sources import ModelSource, open_source
from hybridge.cloud.compiler.steps import Steps
from hybridge.cloud.compiler.writer import BlobStore
from hybridge.shared.errors import BuildError
from hybridge.shared.preprocess import PreprocessSpec

from .conftest import CLASSES, SIZE_PX
from .test_conversion import Spectrum
from .test_tensorflow_source import make_keras

RECIPE = ModelRecipe(
    model="", preprocessing=PreprocessSpec(size_px=SIZE_PX, mean=(127.0,) * 3, std=(128.0,) * 3)
)


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for seed in range(8):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(pictures / f"{seed}.png")
    calibration = open_pictures(pictures, labels=None, classes=CLASSES, minimum=8)
    return Steps(StepCache(tmp_path / "cache"), calibration, lambda *_: None)


def large(source: ModelSource, steps: Steps) -> LargeParts:
    return LargeParts.convert(source, RECIPE, steps=steps, classes=CLASSES)


def test_a_large_keras_model_is_cut(steps: Steps, tmp_path: Path) -> None:
    with quiet("saving"):
        make_keras().save(tmp_path / "net.keras")
    parts = large(open_source(str(tmp_path / "net.keras")), steps)
    shapes = [pair.shape for pair in parts.pairs]
    assert (8, 8, 64) in shapes
    assert (3, 3, 64) in shapes
    assert steps.conversions["large"].route == TENSORFLOW


def test_cuts_of_a_torch_model_end_where_no_device_goes_on(steps: Steps) -> None:
    torch.manual_seed(0)
    source = ModelSource(module=Spectrum().eval(), file=None, sha256="spectrum")
    parts = large(source, steps)
    assert (7, 7, 4) in [pair.shape for pair in parts.pairs]
    conversion = steps.conversions["large"]
    assert (conversion.route, set(conversion.failed)) == (BY_ONNX, {LITERT_TORCH})
    assert "DFT" in conversion.ended_by
    with pytest.raises(BuildError, match=r"the light model: operator DFT"):
        light_part(source, RECIPE, steps=steps, store=BlobStore(), classes=CLASSES)


def test_a_large_tflite_model_is_refused(steps: Steps, tmp_path: Path, converted: Any) -> None:
    (tmp_path / "net.tflite").write_bytes(converted.float32)
    with pytest.raises(BuildError, match="has no tails for the cloud; name the model it was made"):
        large(open_source(str(tmp_path / "net.tflite")), steps)

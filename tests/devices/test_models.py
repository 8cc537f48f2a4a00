import hashlib
import resource
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from msgspec.structs import replace

from hybridge.cloud.compiler.litert import Runner
from hybridge.cloud.compiler.tflite_graph import find_cuts, pack_heads
from hybridge.cloud.compiler.writer import write_bundle
from hybridge.devices.models import (
    WARM_SHAPE,
    DeviceModels,
    check_picture,
    encode_stage,
    head_stage,
    measure_stages,
    quantize,
)
from hybridge.shared.bundle import open_bundle
from hybridge.shared.contract import Contract
from hybridge.shared.errors import TensorError
from hybridge.shared.manifest import Blob, Manifest, Precision
from hybridge.shared.tensor import Array

from ..bundles import CLASSES, CLOUD, CUT, SIZE_PX, SPLIT, Small, picture

GRID = Contract(tensor="t", shape=(3,), dtype="INT8", model="m", scale=0.5, zero_point=-10)


@given(hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(-1e6, 1e6, width=32)))
def test_quantizing_errs_by_half_a_step_and_saturates(tensor: npt.NDArray[np.float32]) -> None:
    codes = quantize(tensor, GRID)
    assert codes.dtype == np.int8
    real = 0.5 * (codes.astype(np.float64) + 10)
    nearest = np.clip(tensor.astype(np.float64), 0.5 * (-128 + 10), 0.5 * (127 + 10))
    assert np.abs(real - nearest).max() <= 0.25


def test_quantizing_rounds_halves_to_even() -> None:
    tensor = np.array([0.25, 0.75, 1.25, -0.25], np.float32)
    assert (quantize(tensor, GRID).astype(int) + 10).tolist() == [0, 2, 2, 0]
    unscaled = Contract(tensor="t", shape=(3,), dtype="UINT8", model="m")
    with pytest.raises(ValueError, match="no quantization in"):
        quantize(tensor, unscaled)


def test_quantizing_saturates_infinities_and_refuses_nan() -> None:
    tensor = np.array([np.inf, -np.inf, 1e-42], np.float32)
    assert quantize(tensor, GRID).tolist() == [127, -128, -10]
    with pytest.raises(TensorError, match="NaN"):
        quantize(np.array([0.0, np.nan], np.float32), GRID)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.int8), r"not int8 \[4, 4, 3\]"),
        (np.zeros((4, 4), np.uint8), r"not uint8 \[4, 4\]"),
        (np.zeros((4, 4, 1), np.uint8), r"not uint8 \[4, 4, 1\]"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"not uint8 \[1, 4, 4, 3\]"),
        (np.zeros((4, 0, 3), np.uint8), "has no pixels"),
    ],
)
def test_what_is_no_picture(small: Small, array: Array, message: str) -> None:
    with pytest.raises(TensorError, match=message):
        check_picture(array)
    for resize in (small.models.resize_light, small.models.resize_large):
        with pytest.raises(TensorError, match=message):
            resize(array)


@pytest.mark.parametrize(("width", "height"), [(16, 16), (1, 1), (5, 200), (640, 3)])
def test_every_size_becomes_the_models(small: Small, width: int, height: int) -> None:
    pixels = small.models.resize_light(picture(0, width=width, height=height))
    assert (pixels.shape, pixels.dtype) == ((SIZE_PX, SIZE_PX, 3), np.uint8)
    probabilities = small.models.light(pixels)
    assert probabilities.shape == (CLASSES,)
    np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-4)


def test_a_light_model_may_give_codes_too(small: Small, tmp_path: Path) -> None:
    manifest = small.bundle.manifest
    model = small.bundle.read(manifest.light.blob)
    whole = [cut for cut in find_cuts(model) if cut.shape == (CLASSES,) and cut.dtype == "int8"]
    in_codes = pack_heads(model, {"all": whole[-1]})
    blobs = {blob.sha256: small.bundle.read(blob) for blob in manifest.blobs()}
    digest = hashlib.sha256(in_codes).hexdigest()
    light = replace(manifest.light, blob=Blob(sha256=digest, bytes=len(in_codes)))
    path = write_bundle(
        replace(manifest, light=light), blobs | {digest: in_codes}, root=tmp_path, key=small.key
    )
    models = DeviceModels(open_bundle(path, trust=small.trust))
    for number in range(3):
        pixels = small.models.resize_light(picture(number))
        np.testing.assert_allclose(models.light(pixels), small.models.light(pixels), rtol=1e-5)
    tensor = (pixels.astype(np.float32) - 127) / 128
    np.testing.assert_allclose(
        Runner(in_codes).values(tensor[None]), Runner(model).values(tensor[None]), rtol=1e-5
    )


def test_both_heads_speak_the_contracts_language(small: Small) -> None:
    contract = small.bundle.manifest.cut(CUT).contract
    pixels = small.models.resize_large(picture(3))
    int8 = small.models.head(CUT, Precision.INT8, pixels)
    float32 = small.models.head(CUT, Precision.FLOAT32, pixels)
    for tensor in (int8, float32):
        assert (tensor.shape, tensor.dtype) == (contract.shape, np.int8)
    assert np.abs(int8.astype(int) - float32.astype(int)).max() < 16
    np.testing.assert_array_equal(small.models.tensor(SPLIT, pixels), int8)
    np.testing.assert_array_equal(small.models.tensor(CLOUD, pixels), pixels)


def test_heads_are_loaded_when_they_are_used(small: Small) -> None:
    models = DeviceModels(small.bundle)
    assert models._heads == {}
    models.warm_up(np.zeros((40, 30, 3), np.uint8))
    assert set(models._heads) == {(CUT, "int8")}


def test_no_picture_waits_for_the_memory_to_resize_it(small: Small) -> None:
    """The first one so large finds it there: by the kernel's count of pages, not by time."""
    models = DeviceModels(small.bundle)
    models.warm_up(np.zeros((40, 30, 3), np.uint8))
    large = np.full(WARM_SHAPE, 7, np.uint8)
    for resize in (models.resize_light, models.resize_large):
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        resize(large)
        pages = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before
        assert pages * resource.getpagesize() < large.nbytes / 4


def test_every_stage_of_the_table_is_measured(small: Small) -> None:
    told: list[tuple[str, int, int]] = []
    stages = measure_stages(
        small.models, picture(0), runs=3, on_stage=lambda *each: told.append(each)
    )
    assert set(stages) == {
        "resize_light", "light", "resize_large", head_stage(CUT, "int8"), encode_stage(SPLIT),
        encode_stage(CLOUD),
    }  # fmt: skip
    assert [(done, total) for _, done, total in told] == [(at, 6) for at in range(6)]
    assert all(stage.p50_ms > 0 and stage.runs == 3 for stage in stages.values())


def test_the_temperature_changes_confidence_and_no_answer(small: Small, tmp_path: Path) -> None:
    def hotter(manifest: Manifest) -> Manifest:
        light = replace(manifest.light, temperature=4 * manifest.light.temperature)
        return replace(manifest, light=light)

    path = small.rewrite(tmp_path, hotter)
    models = DeviceModels(open_bundle(path, trust=small.trust))
    pixels = models.resize_light(picture(3))
    found, sharp = models.light(pixels), small.models.light(pixels)
    wanted = sharp.astype(np.float64) ** 0.25
    np.testing.assert_allclose(found, wanted / wanted.sum(), rtol=1e-4)
    assert found.max() < sharp.max()

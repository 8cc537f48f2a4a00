"""Where a bundle's light model gets its temperature from."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from hybridge.cloud.compiler.cache import StepCache
from hybridge.cloud.compiler.card import card_path
from hybridge.cloud.compiler.light_temperature import with_temperature
from hybridge.cloud.compiler.pictures import PictureSet
from hybridge.cloud.compiler.sources import ModelSource
from hybridge.cloud.compiler.steps import Steps
from hybridge.cloud.compiler.temperature import negative_log_likelihood
from hybridge.shared.bundle import Bundle
from hybridge.shared.manifest import OutputKind

from ...bundles import Small, picture


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    files = [tmp_path / f"{seed}.png" for seed in range(2)]
    for seed, file in enumerate(files):
        Image.fromarray(picture(seed)).save(file)
    pictures = PictureSet(files=tuple(files), labels=(None, None), sha256="two")
    return Steps(StepCache(tmp_path / "cache"), pictures, lambda step, done, total: None)


@pytest.fixture
def student(small: Small, tmp_path: Path) -> ModelSource:
    file = tmp_path / "student.tflite"
    file.write_bytes(small.bundle.read(small.bundle.manifest.light.blob))
    return ModelSource(module=None, file=file, sha256=small.bundle.manifest.light.blob.sha256)


def test_a_build_fits_it_to_the_large_models_answers(small: Small) -> None:
    found = small.bundle.manifest.light.temperature
    pictures = [picture(seed) for seed in range(8)]  # those that calibrate the small bundle
    light = np.stack([small.light(each) for each in pictures])
    large = np.array([int(small.large(each).argmax()) for each in pictures])
    # What the device gives has been divided already: dividing once more improves little.
    assert found != 1.0
    kind = OutputKind.PROBABILITIES
    with_it, without = (
        negative_log_likelihood(light, large, kind, temperature) for temperature in (1.0, 1 / found)
    )
    assert with_it < without


def test_a_card_beside_the_model_decides(small: Small, steps: Steps, student: ModelSource) -> None:
    assert student.file is not None
    card_path(student.file).write_bytes(
        msgspec.json.encode({"format": 1, "student_sha256": student.sha256, "temperature": 2.5})
    )
    assert with_temperature(small.bundle, student, steps).light.temperature == 2.5


def test_it_is_found_once_for_the_same_two_models(small: Small, steps: Steps) -> None:
    source = ModelSource(module=None, file=None, sha256="")
    with_temperature(small.bundle, source, steps)
    renamed = msgspec.structs.replace(small.bundle.manifest, name="other", default_budget_ms=7.0)
    again = StepCache(steps.cache.folder)
    other = Bundle(path=small.bundle.path, manifest=renamed, sha256="")
    with_temperature(other, source, Steps(again, steps.calibration, steps.progress))
    assert (steps.cache.made, again.made, again.reused) == (["temperature"], [], ["temperature"])

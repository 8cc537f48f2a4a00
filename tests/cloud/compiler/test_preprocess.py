from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from hybridge.cloud.compiler.litert import Runner
from hybridge.cloud.compiler.preprocess import (
    NORMALIZE,
    RESIZE,
    Pixels,
    build_preprocess,
    reference_pixels,
    reference_tensor,
    reference_values,
)
from hybridge.shared.preprocess import Interpolation, PreprocessSpec

BILINEAR, BICUBIC = Interpolation.BILINEAR, Interpolation.BICUBIC
SIZE_PX = 24


def spec_of(
    *, interpolation: Interpolation, antialias: bool, crop_padding_px: int | None = 8
) -> PreprocessSpec:
    return PreprocessSpec(
        size_px=SIZE_PX,
        crop_padding_px=crop_padding_px,
        interpolation=interpolation,
        antialias=antialias,
        mean=(120.0, 110.0, 100.0),
        std=(60.0, 61.0, 62.0),
    )


@cache
def runner(spec: PreprocessSpec, signature: str) -> Runner:
    return Runner(build_preprocess(spec), signature=signature)


def resize(picture: Pixels, spec: PreprocessSpec) -> Pixels:
    return runner(spec, RESIZE).run(picture[None])[0]


def noise(*, height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def check_against_reference(picture: Pixels, spec: PreprocessSpec, *, error: float = 0.01) -> None:
    """The reference rounded to nearest, where the reference itself is known to an `error`."""
    made = resize(picture, spec)
    assert (made.shape, made.dtype) == ((SIZE_PX, SIZE_PX, 3), np.uint8)
    assert np.abs(made - reference_values(picture, spec)).max() <= 0.5 + error


@settings(max_examples=40, deadline=None)
@example(height=1, width=1, seed=0, squash=False)
@example(height=1, width=300, seed=0, squash=True)
@example(height=SIZE_PX, width=SIZE_PX, seed=0, squash=True)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    seed=st.integers(0, 9),
    squash=st.booleans(),
)
def test_bilinear_is_what_tensorflow_trained_with(
    height: int, width: int, seed: int, squash: bool
) -> None:
    spec = spec_of(interpolation=BILINEAR, antialias=False, crop_padding_px=None if squash else 8)
    check_against_reference(noise(height=height, width=width, seed=seed), spec)


# Bicubic without antialiasing differs more: TensorFlow looks its weights up in a table of 1024.
@pytest.mark.parametrize(
    ("interpolation", "antialias", "error"),
    [(BILINEAR, True, 0.01), (BICUBIC, True, 0.01), (BICUBIC, False, 0.3)],
)
@pytest.mark.parametrize("size", [(1, 1), (1, 97), (24, 24), (13, 200), (151, 99), (400, 300)])
def test_the_other_modes_follow_the_reference(
    interpolation: Interpolation, antialias: bool, error: float, size: tuple[int, int]
) -> None:
    spec = spec_of(interpolation=interpolation, antialias=antialias)
    check_against_reference(noise(height=size[0], width=size[1]), spec, error=error)


def test_antialiased_bicubic_is_pillows() -> None:
    spec = spec_of(interpolation=BICUBIC, antialias=True, crop_padding_px=None)
    picture = noise(height=150, width=100)
    pillows = Image.fromarray(picture).resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC)
    difference = np.abs(resize(picture, spec).astype(int) - np.asarray(pillows))
    assert difference.max() <= 1  # Pillow rounds between rows and columns


def test_the_modes_differ() -> None:
    picture = noise(height=200, width=200)
    made = {
        resize(picture, spec_of(interpolation=interpolation, antialias=antialias)).tobytes()
        for interpolation in Interpolation
        for antialias in (False, True)
    }
    assert len(made) == 4


def test_a_large_picture_is_cropped_to_its_centre() -> None:
    picture = np.zeros((1200, 1600, 3), np.uint8)
    picture[150:1050, 350:1250] = 200  # 24 / (24 + 8) of 1200 px are 900
    made = resize(picture, spec_of(interpolation=BILINEAR, antialias=False))
    assert (made == 200).all()


def test_normalize_gives_the_models_tensor() -> None:
    spec = spec_of(interpolation=BILINEAR, antialias=False)
    picture = noise(height=SIZE_PX * 4, width=SIZE_PX * 4)
    tensor = runner(spec, NORMALIZE).run(reference_pixels(picture, spec)[None])
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor[0], reference_tensor(picture, spec), atol=1e-6)


def test_the_same_spec_is_the_same_bytes() -> None:
    spec = spec_of(interpolation=BILINEAR, antialias=False)
    other = spec_of(interpolation=BILINEAR, antialias=False, crop_padding_px=9)
    assert build_preprocess(spec) == build_preprocess(spec)
    assert build_preprocess(spec) != build_preprocess(other)

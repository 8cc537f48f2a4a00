import numpy as np
import pytest

from hybridge.cloud.compiler.sensitivity import Sensitivity
from hybridge.cloud.compiler.transform_fit import (
    fit_transform,
    has_transform,
    transform_bands,
    transform_edges,
)
from hybridge.shared.codec.klt import Klt

from ...shared.grids import smooth_tensors

SHAPE = (10, 10, 8)
FREQUENCIES = SHAPE[0] * SHAPE[1]


def mixed(count: int, *, seed: int) -> np.ndarray:
    """Three smooth signals in eight channels, and a little noise in each."""
    random = np.random.default_rng(5)
    mix = random.normal(size=(3, SHAPE[-1]))
    smooth = smooth_tensors(count, (*SHAPE[:2], 3), seed=seed, widest=8.0)
    noise = np.random.default_rng(seed).normal(size=(count, *SHAPE)) * 0.7
    return np.clip(np.rint(smooth @ mix * 4 + noise), -128, 127).astype(np.int8)


def sensitivity(metric: np.ndarray, *, window: np.ndarray | None = None) -> Sensitivity:
    bands = transform_bands(SHAPE)
    return Sensitivity(
        squares=np.ones(SHAPE),
        window=np.ones(SHAPE[:2]) if window is None else window,
        metric=np.tile(metric, (len(bands), 1, 1)),
    )


def coded(codec: Klt, tensors: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean payload's bytes, and the errors."""
    payloads = [codec.encode(each) for each in tensors]
    rebuilt = [codec.decode(each, shape=SHAPE, dtype="INT8") for each in payloads]
    return float(np.mean([len(each) for each in payloads])), np.subtract(
        rebuilt, tensors, dtype=float
    )


def test_bands_are_all_frequencies_once_each() -> None:
    for shape in ((9, 9, 4), (17, 17, 4), (2, 2, 4), (1, 7, 3), (33, 20, 3)):
        bands = transform_bands(shape)
        assert len(bands) == transform_edges(*shape[:2]).size + 1
        assert all(band.size for band in bands)
        assert bands[0].tolist() == [0]
        everything = np.sort(np.concatenate(bands))
        np.testing.assert_array_equal(everything, np.arange(shape[0] * shape[1]))


@pytest.mark.parametrize("shape", [(8,), (1, 1, 8), (129, 4, 8), (4, 4, 257), (2, 3, 4, 5)])
def test_what_is_no_picture_of_few_channels_has_no_transform(shape: tuple[int, ...]) -> None:
    assert not has_transform(shape)
    assert transform_bands(shape) == ()


def test_an_error_in_the_metric_is_what_the_quality_says() -> None:
    """N d^2 / 24, less where coefficients are below the step."""
    random = np.random.default_rng(3)
    root = random.normal(size=(8, 8)) * 0.003
    metric = root @ root.T
    transform = fit_transform(mixed(60, seed=1), sensitivity(metric))
    for quality in (16, 28):
        _, errors = coded(Klt(transform, quality=quality), mixed(20, seed=2))
        loss = float(np.einsum("nyxc,cd,nyxd->n", errors, metric, errors).mean() / 2)
        assert 0.3 < loss / 2 ** (-quality / 4) < 1.5


def test_channels_that_the_answer_minds_are_nearer() -> None:
    metric = np.diag([100.0] * 4 + [1.0] * 4) * 1e-5
    transform = fit_transform(mixed(60, seed=1), sensitivity(metric))
    _, errors = coded(Klt(transform, quality=20), mixed(20, seed=2))
    assert np.square(errors[..., :4]).mean() < 0.5 * np.square(errors[..., 4:]).mean()


def test_places_that_the_answer_minds_are_nearer() -> None:
    window = np.ones(SHAPE[:2])
    window[:, :5] = 0.25
    transform = fit_transform(mixed(60, seed=1), sensitivity(np.eye(8) * 1e-4, window=window))
    _, errors = coded(Klt(transform, quality=12), mixed(20, seed=2))
    assert np.square(errors[:, :, 5:]).mean() < 0.3 * np.square(errors[:, :, :5]).mean()


def test_what_channels_have_in_common_is_sent_once() -> None:
    """Against the same channels, each from another picture: no more in common."""
    tensors = mixed(80, seed=1)
    apart = np.stack(
        [np.roll(tensors[..., channel], 7 * channel, axis=0) for channel in range(8)], axis=-1
    )
    sizes = []
    for each in (tensors, apart):
        transform = fit_transform(each[:60], sensitivity(np.eye(8) * 1e-4))
        sizes.append(coded(Klt(transform, quality=16), each[60:])[0])
    assert sizes[0] < 0.7 * sizes[1]


def test_a_coder_comes_near_the_entropy_of_its_symbols() -> None:
    tensors = mixed(200, seed=1)
    transform = fit_transform(tensors[:150], sensitivity(np.eye(8) * 1e-4))
    codec = Klt(transform, quality=24)
    size, _ = coded(codec, tensors[150:])
    symbols = np.rint([transform.coefficients(each, 24) for each in tensors]).astype(int)
    bits = 0.0
    for own in symbols.reshape(len(tensors), -1).T:
        _, counts = np.unique(own, return_counts=True)
        bits -= float((counts * np.log2(counts / own.size)).sum()) / len(tensors)
    assert size < 1.1 * bits / 8 + 12


@pytest.mark.parametrize(
    "tensors",
    [
        np.zeros((4, 3, 3, 2), np.int8),
        np.full((1, 2, 1, 1), -128, np.int8),
        np.repeat(np.array([-128, 127], np.int8), 12).reshape(2, 2, 3, 2),
    ],
    ids=["nothing", "one value", "two pictures"],
)
def test_little_to_learn_from_still_makes_a_codec(tensors: np.ndarray) -> None:
    transform = fit_transform(tensors, None)
    codec = Klt(transform, quality=60)
    for each in tensors:
        rebuilt = codec.decode(codec.encode(each), shape=each.shape, dtype="INT8")
        assert np.abs(rebuilt.astype(int) - each).max() <= 2


def test_an_answer_that_minds_nothing_still_makes_a_codec() -> None:
    transform = fit_transform(mixed(8, seed=1), sensitivity(np.zeros((8, 8))))
    codec = Klt(transform, quality=30)
    assert codec.decode(codec.encode(mixed(1, seed=2)[0]), shape=SHAPE, dtype="INT8").shape == SHAPE

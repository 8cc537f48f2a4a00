"""The transform of a cut's tensor (shared/codec/transform.py), from calibration pictures.

An error e of a frequency's coefficients costs the answer e' F e / 2, F the channels' block of
Fisher's information (sensitivity.py). In coordinates y = A x with A' A = F every direction costs
alike, so that one step d serves all and N coefficients cost N d^2 / 24; and among these coordinates
those in which the coefficients are uncorrelated, the eigenvectors of A C A', take fewest bits at a
given cost (reverse water-filling; Cover and Thomas, 10.3). What lies below the step costs almost
nothing and is not even sent.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from ...shared.codec.rans import frequencies_of
from ...shared.codec.transform import (
    MAX_CHANNELS,
    MAX_SHIFT,
    MAX_SIDE,
    Transform,
    band_of,
    unit_cosines,
)
from .grid_fit import best_top
from .sensitivity import Sensitivity

_EDGES = (0, 3 / 17, 6 / 17, 10 / 17)
"""Of the longer side: the lowest frequency by itself, then rings."""

_FITTED_VALUES = 1 << 24
_COUNTED_VALUES = 1 << 21
_RIDGE = 0.03
"""Of the mean sensitivity: no direction counts for less, however few pictures said so."""

_SHRINK = 0.5
"""Samples per channel that the mean of all bands counts for in each."""

_PRIOR_PICTURES = 4.0
_SMALLEST, _LARGEST = -9.0, 7.0
"""Octaves of mean sizes, in steps, that have tables."""

_COUNTED_QUALITIES = range(16, 57, 4)
_FARTHEST = 286
_PRIOR = 12.0
_LEVEL_ZERO = 176

I8 = npt.NDArray[np.int8]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


def has_transform(shape: Sequence[int]) -> bool:
    """Whether a tensor [h, w, c] of this shape can have one."""
    return (
        len(shape) == 3
        and 1 < max(shape[:2]) <= MAX_SIDE
        and shape[2] <= MAX_CHANNELS
        and min(shape) > 0
    )


def transform_edges(height: int, width: int) -> npt.NDArray[np.uint32]:
    """Where bands begin; every band has frequencies."""
    longer = max(height, width)
    wanted = np.unique([max(1, round((share * longer) ** 2)) for share in _EDGES])
    farthest = (height - 1) ** 2 + (width - 1) ** 2
    return cast(npt.NDArray[np.uint32], wanted[wanted <= farthest].astype(np.uint32))


def transform_bands(shape: Sequence[int]) -> tuple[I64, ...]:
    """The frequencies of each band, flat; none for a tensor that has no transform."""
    if not has_transform(shape):
        return ()
    edges = transform_edges(shape[0], shape[1])
    band = band_of(shape[0], shape[1], edges)
    return tuple(np.flatnonzero(band == index) for index in range(edges.size + 1))


def fit_transform(tensors: I8, sensitivity: Sensitivity | None) -> Transform:
    """For int8 [n, h, w, c] and a sensitivity by codes that has a metric.

    Without one a quality is about half the mean square error, as a share of the variance.
    """
    _, height, width, channels = tensors.shape
    few = tensors[:: max(1, -(-tensors.size // _FITTED_VALUES))]
    mean = np.rint(few.reshape(-1, channels).mean(axis=0) * 256)
    window = np.ones((height, width)) if sensitivity is None else sensitivity.window
    assert window is not None
    scale = np.clip(np.rint(4096 / window), 1, 65535)
    spectra = _spectra((few - mean / 256) / (scale[..., None] / 4096))
    bands = transform_bands((height, width, channels))
    covariances = _covariances(spectra, bands)
    metric = None if sensitivity is None else sensitivity.metric
    if metric is None:
        variance = max(float(np.square(spectra).mean()), 1e-12)
        metric = np.tile(np.eye(channels) / (variance * spectra[0].size), (len(bands), 1, 1))
    weights = _weights(metric, bands, height * width, samples=len(few))
    unit = np.sqrt(24 / spectra[0].size)
    columns = np.stack([_basis(*each) for each in zip(covariances, weights, strict=True)]) * unit
    basis, gain, exponent = _whole(columns)
    real = basis * np.ldexp(gain.astype(np.float64), exponent - 8)[..., None]
    sizes = np.empty_like(spectra)
    for band, own in zip(bands, real, strict=True):
        sizes[:, band] = spectra[:, band] @ np.linalg.pinv(own)
    level = _levels(sizes, bands)
    shift, top, frequencies = _tables(sizes, level)
    return Transform(
        height=height,
        width=width,
        exponent=exponent,
        first=_first(),
        edges=transform_edges(height, width),
        scale=scale.astype(np.uint16),
        mean=mean.astype(np.int16),
        basis=basis,
        gain=gain,
        level=level,
        shift=shift,
        top=top,
        frequencies=frequencies,
    )


def _spectra(away: F64) -> F64:
    """The cosine transforms [n, h * w, c] of [n, h, w, c]."""
    count, height, width, channels = away.shape
    made = np.matmul(unit_cosines(height), away.reshape(count, height, -1))
    made = np.matmul(unit_cosines(width), made.reshape(count, height, width, channels))
    return cast(F64, made.reshape(count, height * width, channels))


def _covariances(spectra: F64, bands: Sequence[I64]) -> list[F64]:
    """Each band's, drawn towards that of all where it has few samples."""
    channels = spectra.shape[-1]
    sums = [
        np.einsum("nfc,nfd->cd", spectra[:, own], spectra[:, own], optimize=True) for own in bands
    ]
    return _drawn_together(
        [own / band.size / len(spectra) for own, band in zip(sums, bands, strict=True)],
        np.sum(sums, axis=0),
        samples=[len(spectra) * band.size for band in bands],
        prior=_SHRINK * channels,
    )


def _weights(metric: F64, bands: Sequence[I64], frequencies: int, *, samples: int) -> list[F64]:
    channels = metric.shape[-1]
    shares = np.array([band.size for band in bands]) / frequencies
    drawn = _drawn_together(
        list(metric),
        np.tensordot(shares, metric, axes=1),
        samples=[samples * band.size for band in bands],
        prior=_SHRINK * channels,
    )
    least = 1e-3 * max(float(np.trace(each)) for each in drawn) + 1e-30
    ridge = [_RIDGE * max(float(np.trace(each)), least) / channels for each in drawn]
    return [each + own * np.eye(channels) for each, own in zip(drawn, ridge, strict=True)]


def _drawn_together(
    own: Sequence[F64], common: F64, *, samples: Sequence[int], prior: float
) -> list[F64]:
    """Each towards the common one of the same trace."""
    trace = max(float(np.trace(common)), 1e-30)
    made = []
    for each, count in zip(own, samples, strict=True):
        share = prior / (prior + count)
        made.append((1 - share) * each + share * common * (np.trace(each) / trace))
    return made


def _basis(covariance: F64, weight: F64) -> F64:
    """Rows: what a unit of each coefficient adds to the channels, the largest variance first."""
    sizes, directions = np.linalg.eigh(weight)
    root = np.sqrt(np.maximum(sizes, sizes.max() * 1e-9))
    whitened = (directions * root) @ directions.T
    _, axes = np.linalg.eigh(whitened @ covariance @ whitened)
    inverse = (directions / root) @ directions.T
    return cast(F64, axes[:, ::-1].T @ inverse)


def _whole(rows: F64) -> tuple[I8, npt.NDArray[np.uint16], int]:
    """basis, gain and exponent of rows [bands, k, c] in codes."""
    farthest = np.abs(rows).max(axis=2)
    basis = np.rint(rows / np.maximum(farthest, 1e-300)[..., None] * 127).astype(np.int8)
    scale = farthest / 127 * 256
    exponent = int(np.clip(np.ceil(np.log2(scale.max() / 65535)), -40, 40))
    gain = np.clip(np.rint(np.ldexp(scale, -exponent)), 1, 65535).astype(np.uint16)
    return basis, gain, exponent


def _levels(coefficients: F64, bands: Sequence[I64]) -> npt.NDArray[np.uint8]:
    """Logarithms of mean sizes, drawn a little towards those of the band."""
    size = np.abs(coefficients).mean(axis=0)
    count = len(coefficients)
    for band in bands:
        common = size[band].mean(axis=0)
        size[band] = (count * size[band] + _PRIOR_PICTURES * common) / (count + _PRIOR_PICTURES)
    level = np.rint(8 * np.log2(np.maximum(size, 1e-12))) + _LEVEL_ZERO
    return cast(npt.NDArray[np.uint8], np.clip(level, 0, 255).astype(np.uint8))


def _first() -> int:
    """`Transform.first`: where at quality 0 the smallest mean size stands."""
    return _LEVEL_ZERO + round(8 * _SMALLEST)


def _tables(
    coefficients: F64, level: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Shift, top and frequencies of tables a quarter of an octave apart."""
    octaves = np.arange(_SMALLEST, _LARGEST, 0.25) + 1 / 16
    shift = np.clip(np.floor(octaves), 0, MAX_SHIFT).astype(np.int64)
    pictures = max(8, _COUNTED_VALUES // coefficients[0].size)
    few = coefficients[:: max(1, len(coefficients) // pictures)]
    width = 2 * _FARTHEST + 1
    counts = np.zeros((octaves.size, width))
    for quality in _COUNTED_QUALITIES:
        table = np.minimum((level.astype(np.int64) + quality - _first()) >> 1, octaves.size - 1)
        sent = table >= 0
        symbols = np.rint(few[:, sent] * 2.0 ** (quality / 8)).astype(np.int64)
        high = np.clip(symbols >> shift[table[sent]], -_FARTHEST, _FARTHEST)
        keys = table[sent] * width + high + _FARTHEST
        counts += np.bincount(keys.ravel(), minlength=counts.size).reshape(counts.shape)
    counts += _PRIOR * _expected(np.exp2(octaves - shift), width)
    top = np.array([best_top(np.rint(own).astype(np.int64)) for own in counts])
    reach = int(top.max())
    frequencies = np.zeros((top.size, 2 * reach + 1), np.uint8)
    for index, own in enumerate(top):
        inner = counts[index, _FARTHEST - own : _FARTHEST + own + 1].copy()
        inner[0] += counts[index, : _FARTHEST - own].sum()
        inner[-1] += counts[index, _FARTHEST + own + 1 :].sum()
        frequencies[index, reach - own : reach + own + 1] = frequencies_of(inner[None])[0]
    return shift.astype(np.uint8), top.astype(np.uint8), frequencies


def _expected(size: F64, width: int) -> F64:
    """Chances of rounded values of Laplace distributions with these mean sizes."""
    far = np.abs(np.arange(width) - width // 2)
    beyond = np.exp(-(far + 0.5) / size[:, None])
    chances = (np.exp(-np.maximum(far - 0.5, 0) / size[:, None]) - beyond) / 2
    chances[:, width // 2] = 1 - np.exp(-0.5 / size)
    return cast(F64, chances / chances.sum(axis=1, keepdims=True))

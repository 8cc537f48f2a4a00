"""Pictures of any size made ready for a model, as its bundle's preprocessing does it on devices.

The same arithmetic as the TFLite graph of `cloud/compiler/preprocess.py`, in numpy: that graph
needs a device's runtime, which a cloud does not install. Rounding may differ by one step of 255.
"""

import numpy as np
import numpy.typing as npt

from ..shared.preprocess import Interpolation, PreprocessSpec

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_KEYS_A = -0.5  # Keys 1981, as tf.image.resize and Pillow have it
_RADIUS = {Interpolation.BILINEAR: 1, Interpolation.BICUBIC: 2}


def prepare(picture: Pixels, spec: PreprocessSpec) -> Pixels:
    """Crops and resizes uint8 [h, w, 3] to uint8 [size, size, 3], rounded to nearest."""
    height, width, _ = picture.shape
    if (crop := spec.crop(width=width, height=height)) is not None:
        left, top, side = crop
        picture = picture[top : top + side, left : left + side]
    for axis in (0, 1):
        picture = _resized(picture, axis, spec)  # type: ignore[assignment]
    return (np.clip(picture, 0, 255) + np.float32(0.5)).astype(np.uint8)


def _resized(picture: npt.NDArray[np.generic], axis: int, spec: PreprocessSpec) -> Floats:
    indices, weights = _taps(picture.shape[axis], spec)
    sized = [1, 1, 1]
    sized[axis] = spec.size_px
    total: Floats | None = None
    for index, weight in zip(indices, weights, strict=True):  # tap by tap: no large temporary
        part = np.take(picture, index, axis) * weight.reshape(sized)
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None
    return total


def _taps(length: int, spec: PreprocessSpec) -> tuple[npt.NDArray[np.intp], Floats]:
    """Which pixels of an axis make each target pixel, [taps, size], and their weights."""
    step = np.float32(length) / np.float32(spec.size_px)
    widening = max(float(step), 1.0) if spec.antialias else 1.0
    centres = (np.arange(spec.size_px, dtype=np.float32) + np.float32(0.5)) * step
    radius = _RADIUS[spec.interpolation] * widening
    first = np.floor(centres - radius + 0.5).astype(np.intp)
    indices = first + np.arange(int(np.ceil(2 * radius)) + 1)[:, None]
    weights = _kernel(np.abs(indices + 0.5 - centres) / widening, spec.interpolation)
    weights[(indices < 0) | (indices >= length)] = 0
    kept = weights.any(axis=1)
    weights = weights[kept] / weights.sum(axis=0)
    return np.clip(indices[kept], 0, length - 1), weights.astype(np.float32)


def _kernel(
    distance: npt.NDArray[np.float64], interpolation: Interpolation
) -> npt.NDArray[np.float64]:
    """Weight of a pixel at a distance >= 0, in (widened) pixels."""
    if interpolation is Interpolation.BILINEAR:
        return np.maximum(1.0 - distance, 0.0)
    near, far = np.minimum(distance, 1.0), np.clip(distance, 1.0, 2.0)
    inner = ((_KEYS_A + 2.0) * near - (_KEYS_A + 3.0)) * near * near + 1.0
    outer = _KEYS_A * (((far - 5.0) * far + 8.0) * far - 4.0)
    return inner + outer  # each is zero where the other one holds

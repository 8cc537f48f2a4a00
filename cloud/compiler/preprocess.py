"""Preprocessing as a TFLite model, so that every device crops, resizes and normalises alike.

Without antialiasing only the rows and columns that count are gathered, in uint8, before anything is
computed: bilinear to 260x260 takes under 2 ms from 500x375 and 5 ms from 4000x3000 pixels on one
thread, where cropping, casting and RESIZE_BILINEAR take 22 ms for the latter (2-core AVX512 build
machine). With antialiasing every pixel counts and two matrix products do the work; the price grows
with the cube of the side: 2 to 6 ms and 97 to 135 ms.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...shared.errors import BuildError
from ...shared.preprocess import Interpolation, PreprocessSpec
from .litert import Runner
from .pictures import read_picture
from .quiet import quiet

if TYPE_CHECKING:
    import tensorflow as tf

Pixels = npt.NDArray[np.uint8]

RESIZE = "resize"
NORMALIZE = "normalize"

_KEYS_A = -0.5  # Keys 1981, as tf.image.resize and Pillow have it
_RADIUS = {Interpolation.BILINEAR: 1, Interpolation.BICUBIC: 2}


def build_preprocess(spec: PreprocessSpec) -> bytes:
    """A TFLite model of built-in operators with two signatures.

    `resize` takes `picture`, uint8 [1, h, w, 3] of any size from 1x1, and returns `pixels`, uint8
    [1, size, size, 3], rounded to nearest. `normalize` takes `pixels` and returns `tensor`, float32
    [1, size, size, 3] = (pixels - mean) / std.
    """
    with quiet("building of the preprocessing"):
        import tensorflow as tf

        size = spec.size_px

        def resize(picture: "tf.Tensor") -> dict[str, "tf.Tensor"]:
            return {"pixels": _resized(picture, spec)}

        def normalize(pixels: "tf.Tensor") -> dict[str, "tf.Tensor"]:
            centred = tf.cast(pixels, tf.float32) - tf.constant(spec.mean, tf.float32)
            return {"tensor": centred / tf.constant(spec.std, tf.float32)}

        module = tf.Module()
        module.resize = tf.function(
            resize, input_signature=[tf.TensorSpec([1, None, None, 3], tf.uint8, "picture")]
        )
        module.normalize = tf.function(
            normalize, input_signature=[tf.TensorSpec([1, size, size, 3], tf.uint8, "pixels")]
        )
        with tempfile.TemporaryDirectory() as folder:
            tf.saved_model.save(
                module,
                folder,
                signatures={RESIZE: module.resize, NORMALIZE: module.normalize},
            )
            converter = tf.lite.TFLiteConverter.from_saved_model(
                folder, signature_keys=[RESIZE, NORMALIZE]
            )
            return bytes(converter.convert())


def checked_preprocess(spec: PreprocessSpec, files: Sequence[Path]) -> bytes:
    """The model of a spec; BuildError if it is over one level off its reference on a picture."""
    model = build_preprocess(spec)
    resize = Runner(model, signature=RESIZE)
    for file in files:
        picture = read_picture(file)
        wanted = reference_pixels(picture, spec).astype(np.int16)
        worst = int(np.abs(resize.run(picture[None])[0].astype(np.int16) - wanted).max())
        if worst > 1:
            raise BuildError(
                f"preprocessing in TFLite is {worst} levels off its reference on {file.name}"
            )
    return model


def reference_pixels(picture: Pixels, spec: PreprocessSpec) -> Pixels:
    """What `resize` should give for uint8 [h, w, 3]; exact halves may round either way."""
    pixels: Pixels = np.floor(reference_values(picture, spec) + 0.5).astype(np.uint8)
    return pixels


def reference_values(picture: Pixels, spec: PreprocessSpec) -> npt.NDArray[np.float32]:
    """A slice and `tf.image.resize` of uint8 [h, w, 3]: [size, size, 3], 0..255, not rounded."""
    import tensorflow as tf

    height, width, _ = picture.shape
    crop = spec.crop(width=width, height=height)
    if crop is not None:
        left, top, side = crop
        picture = picture[top : top + side, left : left + side]
    size = (spec.size_px, spec.size_px)
    resized = tf.image.resize(
        picture[None], size, method=spec.interpolation.value, antialias=spec.antialias
    )
    values: npt.NDArray[np.float32] = np.clip(resized.numpy()[0], 0, 255)
    return values


def reference_tensor(picture: Pixels, spec: PreprocessSpec) -> npt.NDArray[np.float32]:
    """What `normalize` should give after `resize` for a picture, uint8 [h, w, 3]."""
    centred = reference_pixels(picture, spec).astype(np.float64) - np.array(spec.mean)
    tensor: npt.NDArray[np.float32] = (centred / np.array(spec.std)).astype(np.float32)
    return tensor


@dataclass(frozen=True)
class _Axis:
    """One axis of the crop: its first pixel and its length, int32 scalars of the graph."""

    first: Any
    length: Any


def _resized(picture: Any, spec: PreprocessSpec) -> Any:
    import tensorflow as tf

    rows, columns = _crop(picture, spec)
    make = _from_all_pixels if spec.antialias else _from_nearest_pixels
    resized = make(picture, rows, columns, spec)
    if spec.interpolation is Interpolation.BICUBIC:  # overshoots at edges
        resized = tf.clip_by_value(resized, 0.0, 255.0)
    size = spec.size_px
    return tf.reshape(tf.cast(resized + 0.5, tf.uint8), [1, size, size, 3])


def _crop(picture: Any, spec: PreprocessSpec) -> tuple[_Axis, _Axis]:
    """`PreprocessSpec.crop` in the graph."""
    import tensorflow as tf

    shape = tf.shape(picture)
    height, width = shape[1], shape[2]
    if spec.crop_padding_px is None:
        return _Axis(0, height), _Axis(0, width)
    shorter = tf.minimum(height, width)
    side = tf.maximum(1, spec.size_px * shorter // (spec.size_px + spec.crop_padding_px))
    return _Axis((height - side + 1) // 2, side), _Axis((width - side + 1) // 2, side)


def _from_nearest_pixels(picture: Any, rows: _Axis, columns: _Axis, spec: PreprocessSpec) -> Any:
    """Float pixels, 0..255, [size, size * 3], of 2 or 4 taps per axis."""
    import tensorflow as tf

    size = spec.size_px
    row_indices, row_weights = _taps(rows, spec)
    column_indices, column_weights = _taps(columns, spec)
    # Whole rows first: they are contiguous, so that the picture's width costs next to nothing.
    gathered = tf.gather(picture, tf.concat(row_indices, 0), axis=1)
    gathered = tf.gather(gathered, tf.concat(column_indices, 0), axis=2)
    count = len(row_indices)
    # Two dimensions: broadcasting over three or more is many times slower in TFLite.
    values = tf.reshape(tf.cast(gathered, tf.float32), [count * size, count * size * 3])
    by_row = tf.add_n(
        [
            values[tap * size : (tap + 1) * size] * weight[:, None]
            for tap, weight in enumerate(row_weights)
        ]
    )
    span = size * 3
    return tf.add_n(
        [
            by_row[:, tap * span : (tap + 1) * span]
            * tf.reshape(tf.stack([weight] * 3, 1), [1, span])
            for tap, weight in enumerate(column_weights)
        ]
    )


def _taps(axis: _Axis, spec: PreprocessSpec) -> tuple[list[Any], list[Any]]:
    """Per tap the pixel indices, int32 [size], and weights, float32 [size], of an axis."""
    import tensorflow as tf

    centre = _centres(axis, spec) - 0.5
    low = tf.floor(centre)
    fraction = centre - low
    nearest = tf.cast(low, tf.int32)
    radius = _RADIUS[spec.interpolation]
    indices, weights = [], []
    for tap in range(1 - radius, 1 + radius):
        index = nearest + tap
        inside = tf.clip_by_value(index, 0, axis.length - 1)
        weight = _kernel(tf.abs(fraction - float(tap)), spec)
        indices.append(inside + axis.first)
        weights.append(weight * tf.cast(tf.equal(inside, index), tf.float32))
    total = tf.add_n(weights)
    return indices, [weight / total for weight in weights]


def _from_all_pixels(picture: Any, rows: _Axis, columns: _Axis, spec: PreprocessSpec) -> Any:
    """Float pixels, 0..255, [size, size, 3]: weights @ picture @ weights transposed."""
    import tensorflow as tf

    size = spec.size_px
    cropped = tf.slice(
        picture,
        tf.stack([0, rows.first, columns.first, 0]),
        tf.stack([1, rows.length, columns.length, 3]),
    )
    values = tf.reshape(tf.cast(cropped, tf.float32), tf.stack([rows.length, columns.length * 3]))
    by_row = tf.matmul(_dense_weights(rows, spec), values)
    turned = tf.transpose(tf.reshape(by_row, tf.stack([size, columns.length, 3])), [1, 0, 2])
    flat = tf.reshape(turned, tf.stack([columns.length, size * 3]))
    by_column = tf.matmul(_dense_weights(columns, spec), flat)
    return tf.transpose(tf.reshape(by_column, [size, size, 3]), [1, 0, 2])


def _dense_weights(axis: _Axis, spec: PreprocessSpec) -> Any:
    """Weights [size, length]: the kernel widened by the factor by which the axis shrinks."""
    import tensorflow as tf

    pixels = tf.cast(tf.range(axis.length), tf.float32) + 0.5
    widening = tf.maximum(tf.cast(axis.length, tf.float32) / spec.size_px, 1.0)
    distance = tf.abs(pixels[None, :] - _centres(axis, spec)[:, None]) / widening
    weights = _kernel(distance, spec)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def _centres(axis: _Axis, spec: PreprocessSpec) -> Any:
    """Centres of the target pixels on the source axis, float32 [size]."""
    import tensorflow as tf

    step = tf.cast(axis.length, tf.float32) / spec.size_px
    return tf.constant(np.arange(spec.size_px) + 0.5, tf.float32) * step


def _kernel(distance: Any, spec: PreprocessSpec) -> Any:
    """Weight of a pixel at a distance >= 0, in (widened) pixels."""
    import tensorflow as tf

    if spec.interpolation is Interpolation.BILINEAR:
        return tf.maximum(1.0 - distance, 0.0)
    near = tf.minimum(distance, 1.0)
    inner = ((_KEYS_A + 2.0) * near - (_KEYS_A + 3.0)) * near * near + 1.0
    far = tf.clip_by_value(distance, 1.0, 2.0)
    outer = _KEYS_A * (((far - 5.0) * far + 8.0) * far - 4.0)
    # Both polynomials are zero where the other one holds.
    return inner + outer

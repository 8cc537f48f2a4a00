"""Golden inputs and outputs, by which a machine tests a bundle before it uses it."""

import io

import numpy as np

from .bundle import Bundle
from .manifest import Precision
from .tensor import Array

PICTURE = "picture"
FOR_LARGE = "resize_large"
"""The picture as the large model takes it."""

_SIDE = "input:"


def read_golden(bundle: Bundle) -> dict[str, Array]:
    """The arrays that travel with a bundle, by name."""
    encoded = bundle.read(bundle.manifest.golden.blob)
    with np.load(io.BytesIO(encoded), allow_pickle=False) as arrays:
        return dict(arrays)


def side_name(name: str) -> str:
    """What an input beside the picture is called among golden arrays."""
    return f"{_SIDE}{name}"


def answer_name(precision: Precision) -> str:
    """What the large model's probabilities in a precision are called there."""
    return f"answer:{precision}"


def error_of(actual: Array, expected: Array) -> float:
    """The largest absolute difference, relative to the largest absolute expected value."""
    wide = expected.astype(np.float64)
    return float(np.abs(actual.astype(np.float64) - wide).max() / max(np.abs(wide).max(), 1e-9))

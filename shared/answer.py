"""From a classifier's last tensor to an answer; the same code on both sides of a cut."""

from typing import cast

import numpy as np
import numpy.typing as npt

from .manifest import OutputKind

Probabilities = npt.NDArray[np.float32]


_LEAST = 1e-30


def to_probabilities(
    output: npt.NDArray[np.float32], kind: OutputKind, *, temperature: float = 1.0
) -> Probabilities:
    """Probabilities along the last axis, float32; softmax only if the output holds logits.

    A temperature other than 1 divides the logits, or the logarithms of what holds probabilities.

    >>> to_probabilities(np.array([0.0, 0.0], np.float32), OutputKind.LOGITS).tolist()
    [0.5, 0.5]
    >>> half = to_probabilities(np.array([0.9, 0.1]), OutputKind.PROBABILITIES, temperature=2.0)
    >>> half.tolist()
    [0.75, 0.25]
    """
    if kind is OutputKind.PROBABILITIES:
        if temperature == 1.0:
            return output.astype(np.float32, copy=False)
        output = np.log(np.maximum(output, _LEAST))
    if temperature != 1.0:
        output = output / temperature
    shifted = np.exp(output - output.max(axis=-1, keepdims=True))
    return cast(Probabilities, shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)


def top_classes(probabilities: Probabilities, count: int) -> list[int]:
    """Positions of the most probable classes of one answer, most probable first.

    >>> top_classes(np.array([0.1, 0.6, 0.3], np.float32), 2)
    [1, 2]
    """
    order = np.argsort(-probabilities, kind="stable")
    return [int(position) for position in order[:count]]

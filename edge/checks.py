"""Whether what a cloud sent can be an answer: it need not be one of ours."""

import numpy as np

from ..shared.errors import RemoteRefused
from ..shared.manifest import Manifest
from .cloud_messages import CloudAnswer


def check_answer(answer: CloudAnswer, *, manifest: Manifest) -> None:
    """RemoteRefused unless this could be an answer of the bundle's model."""
    probabilities, classes = answer.probabilities, manifest.classes
    if probabilities.shape != (classes,) or not np.isfinite(probabilities).all():
        raise RemoteRefused(f"its answer is not {classes} probabilities")
    for spec in manifest.large.outputs:
        found = answer.outputs.get(spec.name)
        if found is not None and (found.shape != (1, *spec.shape) or found.dtype != spec.dtype):
            raise RemoteRefused(f"its output is {found.dtype} {list(found.shape)}, not {spec}")

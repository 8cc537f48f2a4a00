"""Tests a bundle's large model on this machine before anybody is answered by it."""

import numpy as np

from ..shared.errors import BundleError
from ..shared.golden import FOR_LARGE, answer_name, error_of, read_golden, side_name
from .model import ServedModel


def check_golden(model: ServedModel) -> None:
    """BundleError if the whole strays further from its golden answer than the bundle allows.

    A bundle that was built before there was one passes.
    """
    manifest = model.bundle.manifest
    name = answer_name(model.precision)
    tolerance = manifest.golden.tolerance.get(name)
    if tolerance is None:
        return
    golden = read_golden(model.bundle)
    sides = {spec.name: golden[side_name(spec.name)] for spec in manifest.large.inputs}
    answer = model.whole.run(golden[FOR_LARGE][None], sides).probabilities
    assert answer is not None
    error = error_of(answer, golden[name])
    if not error <= tolerance or not np.isfinite(error):
        raise BundleError(
            f"this machine computes the answer {error:.3g} off its golden one in "
            f"{model.precision}, {tolerance:.3g} is allowed; the bundle cannot be served here"
        )

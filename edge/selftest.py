"""Tests a bundle on this machine before it is used: kernels round differently elsewhere."""

import io
from typing import cast

import numpy as np

from ..devices.models import LIGHT, RESIZE_LARGE, RESIZE_LIGHT, DeviceModels, Pixels, head_stage
from ..shared.bundle import Bundle
from ..shared.errors import BundleError
from ..shared.plan import PlanKind
from ..shared.tensor import Array

PICTURE = "picture"


def golden_picture(bundle: Bundle) -> Array:
    """The picture that travels with a bundle, uint8 RGB [h, w, 3]."""
    return _read(bundle)[PICTURE]


def self_test(bundle: Bundle, *, threads: int = 1) -> None:
    """BundleError if any stage here strays further from its golden output than the bundle allows.

    Uses models of its own and drops them, so that heads nobody asks for hold no memory.
    """
    models = DeviceModels(bundle, threads=threads)
    expected = _read(bundle)
    light, large = (cast(Pixels, expected[name]) for name in (RESIZE_LIGHT, RESIZE_LARGE))
    actual: dict[str, Array] = {
        RESIZE_LIGHT: models.resize_light(expected[PICTURE]),
        RESIZE_LARGE: models.resize_large(expected[PICTURE]),
        LIGHT: models.light(light),
    }
    for row in bundle.manifest.table:
        plan = row.parsed()
        stage = head_stage(plan.cut, plan.head)
        if plan.kind is PlanKind.SPLIT and stage not in actual:
            actual[stage] = models.tensor(plan, large)
    for name, tolerance in bundle.manifest.golden.tolerance.items():
        if name in actual:
            _compare(name, actual[name], expected[name], tolerance)


def _compare(name: str, actual: Array, expected: Array, tolerance: float) -> None:
    wide = expected.astype(np.float64)
    error = float(np.abs(actual.astype(np.float64) - wide).max() / max(np.abs(wide).max(), 1e-9))
    if not error <= tolerance:
        raise BundleError(
            f"this machine computes {name} {error:.3g} off its golden output, "
            f"{tolerance:.3g} is allowed; the bundle cannot be used here"
        )


def _read(bundle: Bundle) -> dict[str, Array]:
    encoded = bundle.read(bundle.manifest.golden.blob)
    with np.load(io.BytesIO(encoded), allow_pickle=False) as arrays:
        return dict(arrays)

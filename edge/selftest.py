"""Tests a bundle on this machine before it is used: kernels round differently elsewhere."""

from typing import cast

from ..devices.models import LIGHT, RESIZE_LARGE, RESIZE_LIGHT, DeviceModels, Pixels, head_stage
from ..shared.bundle import Bundle
from ..shared.errors import BundleError
from ..shared.golden import PICTURE, error_of, read_golden
from ..shared.plan import PlanKind
from ..shared.tensor import Array


def golden_picture(bundle: Bundle) -> Array:
    """The picture that travels with a bundle, uint8 RGB [h, w, 3]."""
    return read_golden(bundle)[PICTURE]


def self_test(bundle: Bundle, *, threads: int = 1) -> None:
    """BundleError if any stage here strays further from its golden output than the bundle allows.

    Uses models of its own and drops them, so that heads nobody asks for hold no memory.
    """
    models = DeviceModels(bundle, threads=threads)
    expected = read_golden(bundle)
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
    error = error_of(actual, expected)
    if not error <= tolerance:
        raise BundleError(
            f"this machine computes {name} {error:.3g} off its golden output, "
            f"{tolerance:.3g} is allowed; the bundle cannot be used here"
        )

import io
from pathlib import Path

import numpy as np
import pytest

from hybridge.devices.models import LIGHT, RESIZE_LARGE, RESIZE_LIGHT, head_stage
from hybridge.edge.selftest import golden_picture, self_test
from hybridge.shared.bundle import open_bundle
from hybridge.shared.errors import BundleError
from hybridge.shared.tensor import Array

from ..bundles import CUT, Small

HEAD = head_stage(CUT, "int8")


def golden(small: Small) -> dict[str, Array]:
    blob = small.bundle.manifest.golden.blob
    with np.load(io.BytesIO(small.bundle.read(blob)), allow_pickle=False) as arrays:
        return dict(arrays)


def test_a_bundle_passes_where_it_was_built(small: Small) -> None:
    self_test(small.bundle)
    picture = golden_picture(small.bundle)
    assert picture.dtype == np.uint8
    assert picture.shape[2:] == (3,)


@pytest.mark.parametrize("stage", [LIGHT, HEAD])
@pytest.mark.parametrize("share", [0.5, 1.5, -1.5, np.nan])
def test_how_far_a_stage_may_stray(small: Small, tmp_path: Path, stage: str, share: float) -> None:
    """Moves one expected value by a share of the stage's tolerance."""
    arrays = golden(small)
    expected = arrays[stage].astype(np.float64)
    flat = expected.reshape(-1)
    at = int(np.abs(flat).argmin())  # so that the largest stays the largest
    flat[at] += share * small.bundle.manifest.golden.tolerance[stage] * np.abs(flat).max()
    check_self_test(small, tmp_path, arrays | {stage: expected}, stage, passes=share == 0.5)


@pytest.mark.parametrize("stage", [RESIZE_LIGHT, RESIZE_LARGE])
@pytest.mark.parametrize("levels", [1, 4])
def test_how_far_pixels_may_stray(small: Small, tmp_path: Path, stage: str, levels: int) -> None:
    arrays = golden(small)
    pixels = arrays[stage].astype(np.uint8)
    at = np.unravel_index(pixels.argmin(), pixels.shape)
    pixels[at] += levels
    check_self_test(small, tmp_path, arrays | {stage: pixels}, stage, passes=levels == 1)


def check_self_test(
    small: Small, root: Path, arrays: dict[str, Array], stage: str, *, passes: bool
) -> None:
    bundle = open_bundle(small.with_golden(root, arrays), trust=small.trust)
    if passes:
        self_test(bundle)
        return
    with pytest.raises(BundleError, match=f"computes {stage} .* off its golden output"):
        self_test(bundle)

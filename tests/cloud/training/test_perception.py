from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
import torch

from hybridge.cloud.training.inversion_course import pictures_of
from hybridge.cloud.training.perception import FeatureDistance, early_layers
from hybridge.shared.manifest import BuildRecord

from ...bundles import SIZE_PX, picture

if TYPE_CHECKING:
    from ...bundles import Small

pytestmark = pytest.mark.usefixtures("one_thread")


def batch(*seeds: int) -> torch.Tensor:
    return pictures_of(np.stack([picture(s, width=SIZE_PX, height=SIZE_PX) for s in seeds]))


@pytest.fixture
def distance(small: Small) -> FeatureDistance:
    return FeatureDistance(small.bundle, early_layers(small.bundle))


def test_the_last_tensor_of_each_grid_is_taken(small: Small) -> None:
    layers = early_layers(small.bundle)
    assert [layer.side for layer in layers] == [4, 2]
    records = {each.tensors[0]: each.work for each in small.bundle.manifest.build.cuts}
    for layer in layers:
        sides = [c for c in small.bundle.manifest.build.cuts if layer.side in c.shapes[0]]
        assert records[layer.tensor] == max(each.work for each in sides)


def test_a_picture_is_at_no_distance_from_itself(distance: FeatureDistance) -> None:
    assert distance(batch(0, 1), batch(0, 1)) == pytest.approx([0.0, 0.0])


def test_it_grows_with_what_is_changed(distance: FeatureDistance) -> None:
    one = batch(0, 1, 2)
    noise = torch.randn(one.shape, generator=torch.Generator().manual_seed(0))
    near, far = (distance((one + share * noise).clamp(0, 1), one) for share in (0.05, 0.5))
    assert (near > 0).all()
    assert (near < far).all()
    assert distance(one, (one + 0.05 * noise).clamp(0, 1)) == pytest.approx(near)


def test_pictures_may_be_smaller_than_the_model_takes_them(distance: FeatureDistance) -> None:
    small_ones = torch.nn.functional.avg_pool2d(batch(0, 1), 2)
    assert (distance(small_ones, small_ones.flip(0)) > 0).all()


def test_without_records_there_is_no_distance(small: Small) -> None:
    manifest = msgspec.structs.replace(small.bundle.manifest, build=BuildRecord())
    assert early_layers(dataclasses.replace(small.bundle, manifest=manifest)) == ()

"""A bundle whose cloud may compute in every precision, from the recipe to the table."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hybridge.cloud.compiler.build import build
from hybridge.cloud.compiler.cache import StepCache
from hybridge.cloud.compiler.cloud_side import CloudSide, measure_cloud
from hybridge.devices.models import DeviceModels
from hybridge.devices.profile import StageTime, tail_stage
from hybridge.shared.bundle import Bundle, open_bundle
from hybridge.shared.manifest import Precision, Runtime
from hybridge.shared.plan import Plan, PlanKind
from hybridge.shared.signing import SigningKey, TrustStore

from ...bundles import compiler_version, picture, small_recipe

FURTHER = (Precision.INT8, Precision.FLOAT16, Precision.BFLOAT16)


@pytest.fixture(scope="module")
def times() -> dict[str, StageTime]:
    return {}


@pytest.fixture(scope="module")
def bundle(
    tmp_path_factory: pytest.TempPathFactory,
    times: dict[str, StageTime],
    pytestconfig: pytest.Config,
) -> Bundle:
    folder = tmp_path_factory.mktemp("precisions")
    recipe = small_recipe(folder)
    recipe = replace(recipe, large=replace(recipe.large, tails=(Precision.FLOAT32, *FURTHER)))
    key = SigningKey.load_or_create(folder / "signing.key")
    cache = pytestconfig.cache
    assert cache is not None
    path = build(
        recipe,
        root=folder / "bundles",
        key=key,
        cache=StepCache(Path(cache.mkdir("bundle")) / compiler_version()),
        progress=lambda step, done, total: None,
        on_times=times.update,
    )
    return open_bundle(path, trust=TrustStore(frozenset({key.public_hex})))


def test_every_remote_plan_is_measured_in_every_precision(bundle: Bundle) -> None:
    for row in bundle.manifest.table:
        remote = row.parsed().kind is not PlanKind.LOCAL
        assert row.variants.keys() == (set(FURTHER) if remote else set())
    raw = next(row for row in bundle.manifest.table if row.parsed() == Plan.cloud("raw"))
    assert raw.rates().agreement.value == 1.0


def test_all_precisions_answer_alike(bundle: Bundle) -> None:
    models, shown = DeviceModels(bundle), picture(3)
    pixels = models.resize_large(shown)
    float32 = CloudSide.open(bundle)
    sent = {"": pixels} | {
        cut.name: models.head(cut.name, Precision.INT8, pixels)
        for cut in bundle.manifest.large.cuts
    }
    for precision in FURTHER:
        other = CloudSide.open(bundle, precision=precision)
        for cut, tensor in sent.items():
            wanted, made = float32.run(cut, tensor), other.run(cut, tensor)
            assert not np.array_equal(made, wanted)
            assert np.abs(made - wanted).max() < 0.1 * np.abs(wanted).max()


def test_a_further_precision_is_smaller_than_the_model(bundle: Bundle) -> None:
    large = bundle.manifest.large
    for precision in FURTHER:
        assert large.variant(precision).weights.bytes <= large.weights.bytes


def test_what_was_tried_stands_in_the_manifest(bundle: Bundle) -> None:
    tried = bundle.manifest.build.quantized
    chosen = [(each.part, each.precision) for each in tried if each.chosen]
    assert sorted(chosen) == [
        ("large", Precision.INT8),
        ("light", Precision.INT8),
        ("whole", Precision.BFLOAT16),
        ("whole", Precision.FLOAT16),
        ("whole", Precision.INT8),
    ]
    methods = {(each.precision, each.method) for each in tried if each.part == "whole"}
    assert {(Precision.INT8, "torch/dynamic"), (Precision.BFLOAT16, "torch/cast")} <= methods
    assert len(tried) >= 3 * 5 + 3
    assert all(each.float_bytes for each in tried)


def test_times_are_told_and_not_in_the_manifest(
    bundle: Bundle, times: dict[str, StageTime]
) -> None:
    assert times.keys() == {"light/float32", "light/int8", "large/float32", "large/int8"}
    measured = measure_cloud(bundle, picture(0), runs=1)
    cuts = ["", *(cut.name for cut in bundle.manifest.large.cuts)]
    assert measured.keys() == {
        tail_stage(cut, precision) for cut in cuts for precision in (Precision.FLOAT32, *FURTHER)
    }


def test_what_torch_converts_is_not_stored_again(bundle: Bundle) -> None:
    large = bundle.manifest.large
    made = large.variant(Precision.BFLOAT16)
    own = large.variant(Precision.FLOAT32)
    assert made == msgspec.structs.replace(own, runtime=Runtime.TORCH)

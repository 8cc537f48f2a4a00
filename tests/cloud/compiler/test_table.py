from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from PIL import Image

from hybridge.cloud.compiler.contracts import clipping_range
from hybridge.cloud.compiler.golden import pack_arrays
from hybridge.cloud.compiler.pictures import PictureSet
from hybridge.cloud.compiler.table import measure_table, pareto
from hybridge.shared.calibration import Calibration
from hybridge.shared.codec import codec_by_name
from hybridge.shared.codec.affine import Affine
from hybridge.shared.frame import encode_layers
from hybridge.shared.manifest import PlanRow, Prefix, Rate
from hybridge.shared.plan import Plan

from ...bundles import CUT, Small, picture

DEPTH = {"early": 0.2, "late": 0.8}


def row(plan: str, agreement: float, size_bytes: int) -> PlanRow:
    return PlanRow(
        plan=plan,
        agreement=Rate.of(agreement * 100, 100),
        accuracy=None,
        bytes_p50=size_bytes,
        bytes_p95=size_bytes,
    )


def kept(*rows: PlanRow) -> set[str]:
    return {each.plan for each in pareto(rows, work=DEPTH)}


def test_the_honest_rivals_always_stay() -> None:
    rivals = [row("local", 0.5, 0), row("cloud:raw", 1.0, 9000), row("cloud:jpeg-50", 0.6, 8000)]
    assert kept(*rivals, row("cloud:png", 1.0, 8500)) == {
        "local",
        "cloud:raw",
        "cloud:jpeg-50",
        "cloud:png",
    }


def test_a_split_that_a_picture_beats_goes() -> None:
    picture = row("cloud:jpeg-90", 0.95, 1000)
    assert kept(picture, row("split:early/int8/affine8", 0.95, 1000)) == {"cloud:jpeg-90"}
    fewer_bytes = row("split:early/int8/affine4", 0.90, 999)
    assert fewer_bytes.plan in kept(picture, fewer_bytes)
    better = row("split:early/int8/affine8", 0.96, 1001)
    assert better.plan in kept(picture, better)


def test_a_later_cut_has_to_be_worth_its_work() -> None:
    early, late = (
        row("split:early/int8/affine4", 0.9, 500),
        row("split:late/int8/affine4", 0.9, 500),
    )
    assert kept(early, late) == {early.plan}
    assert kept(early, row("split:late/int8/affine4", 0.9, 400)) == {early.plan, late.plan}


def test_a_float_head_has_to_agree_more_than_the_int8_head() -> None:
    int8, float32 = (row(f"split:early/{head}/affine4", 0.9, 500) for head in ("int8", "float32"))
    assert kept(int8, float32) == {int8.plan}
    better = row("split:early/float32/affine4", 0.95, 500)
    assert kept(int8, better) == {int8.plan, better.plan}


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=300), st.integers(2, 7))
def test_clipping_is_never_worse_than_no_clipping(values: list[int], bits: int) -> None:
    tensor = np.array(values, np.int8)
    low, high = clipping_range(tensor, bits=bits)

    def error(codec: Affine) -> float:
        payload = codec.encode(tensor[:, None])
        decoded = codec.decode(payload, shape=(len(values), 1), dtype="INT8")
        return float(((decoded[:, 0].astype(float) - tensor) ** 2).mean())

    no_clipping = error(Affine(bits=bits, low=-128, high=127))
    assert error(Affine(bits=bits, low=low, high=high)) <= no_clipping


def test_eight_bits_clip_nothing() -> None:
    assert clipping_range(np.array([3], np.int8), bits=8) == (-128, 127)


def test_packed_arrays_are_the_same_bytes_whenever_they_are_packed() -> None:
    arrays = {"b": np.arange(3), "a": np.ones((2, 2), np.int8)}
    assert pack_arrays(arrays) == pack_arrays(dict(reversed(arrays.items())))


def test_a_bundle_knows_how_sure_its_light_model_was(small: Small) -> None:
    pictures = [picture(seed) for seed in range(100, 104)]  # those the small bundle is measured on
    pairs = []
    for each in pictures:
        light, large = small.light(each), small.large(each)
        pairs.append((float(light.max()), bool(light.argmax() == large.argmax())))
    assert small.bundle.calibration == Calibration.of(pairs)


@pytest.fixture
def three(tmp_path: Path) -> PictureSet:
    files = tuple(tmp_path / f"{seed}.png" for seed in range(3))
    for seed, file in enumerate(files):
        Image.fromarray(picture(seed)).save(file)
    return PictureSet(files=files, labels=(1, 1, 1), sha256="three")


def test_the_light_model_before_it_was_quantized(small: Small, three: PictureSet) -> None:
    plans = [Plan.local(), Plan.cloud("raw")]
    measured = measure_table(
        small.models, small.cloud, plans, three, light_in_float=small.models.light, view_count=2
    )
    local = next(row for row in measured.rows if row.parsed() == Plan.local())
    assert measured.light_in_float == local.rates()  # it is the same model here
    without = measure_table(small.models, small.cloud, plans, three)
    assert without.light_in_float is None


def test_views_of_a_picture_are_no_further_samples(small: Small, three: PictureSet) -> None:
    plans = [Plan.local(), Plan.cloud("raw")]
    once, thrice = (
        measure_table(small.models, small.cloud, plans, three, view_count=count) for count in (1, 3)
    )
    assert len(once.calibration) == 3
    assert thrice.calibration == once.calibration
    assert {row.agreement.samples for row in (*once.rows, *thrice.rows)} == {3}


def test_confidence_is_measured_on_pictures_that_the_table_leaves_out(
    small: Small, three: PictureSet
) -> None:
    plans = [Plan.local(), Plan.cloud("raw"), Plan.cloud("jpeg-75")]
    every, some = (
        measure_table(small.models, small.cloud, plans, three, view_count=2, most_pictures=most)
        for most in (None, 2)
    )
    assert some.calibration == every.calibration
    for row in some.rows:
        assert row.agreement.samples == 2
        assert row.accuracy is not None
        assert row.accuracy.samples == 2
    ends = PictureSet(files=three.files[::2], labels=(1, 1), sha256="two")
    assert some.rows == measure_table(small.models, small.cloud, plans, ends, view_count=2).rows


def layered_row(plan: str, agreement: float, size_bytes: int) -> PlanRow:
    prefix = Prefix(layers=1, agreement=Rate.of(50, 100), bytes_p50=1, bytes_p95=1)
    return replace(row(plan, agreement, size_bytes), prefixes=(prefix,))


def test_a_plan_in_layers_is_beaten_by_its_like_alone() -> None:
    plain = row("split:early/int8/rans-30", 0.9, 400)
    layers = layered_row("split:early/int8/layers-30", 0.9, 500)
    assert kept(plain, layers) == {plain.plan, layers.plan}
    later = layered_row("split:late/int8/layers-30", 0.9, 500)
    assert kept(layers, later) == {layers.plan}
    assert kept(row("split:late/int8/rans-30", 0.9, 600), layers) == {layers.plan}


def test_a_quick_codec_is_beaten_by_the_quick_alone() -> None:
    quick, slow, slowest = (
        row(f"split:early/int8/{codec}", 0.9, size)
        for codec, size in (("pco-30", 400), ("rans-30", 390), ("klt-30", 300))
    )
    assert kept(quick, slow, slowest) == {quick.plan, slow.plan, slowest.plan}
    assert kept(quick, row("split:early/int8/rans-40", 0.9, 410)) == {quick.plan}
    assert kept(quick, row("split:early/int8/affine4", 0.9, 410)) == {quick.plan}
    assert kept(quick, row("cloud:webp-50", 0.9, 400)) == {"cloud:webp-50"}


def test_every_prefix_of_a_frame_is_measured(small: Small, three: PictureSet) -> None:
    """Against what its own layers decode to, worked out here by the codec alone."""
    plan = Plan.split(CUT, head="int8", codec="layers-30")
    (_, found) = measure_table(small.models, small.cloud, [Plan.local(), plan], three).rows
    contract = small.bundle.manifest.contract(plan)
    codec = codec_by_name(plan.codec, contract)
    sizes = np.zeros((3, 5), int)
    hits = np.zeros((3, 5))
    for seed in range(3):
        pixels = small.models.resize_large(picture(seed))
        wanted = small.large(picture(seed)).argmax()
        tensor = small.models.tensor(plan, pixels)
        layers = codec.encode_layers(tensor)
        for count in range(1, 6):
            made = codec.decode_layers(layers[:count], shape=contract.shape, dtype=contract.dtype)
            hits[seed, count - 1] = small.cloud.run(CUT, made).argmax() == wanted
        frame = encode_layers(tensor, contract=contract, codec=codec)
        sizes[seed] = np.cumsum([len(layer) for layer in frame])
    rows = [*found.prefixes, found]
    assert [each.layers for each in found.prefixes] == [1, 2, 3, 4]
    assert [each.agreement for each in rows] == [Rate.of(sum(column), 3) for column in hits.T]
    assert [each.bytes_p50 for each in rows] == [int(np.median(column)) for column in sizes.T]
    assert [each.bytes_p95 for each in rows] == [
        int(np.quantile(column, 0.95)) for column in sizes.T
    ]


def test_what_comes_whole_has_no_prefixes(small: Small, three: PictureSet) -> None:
    plans = [Plan.local(), Plan.cloud("raw"), Plan.split(CUT, head="int8", codec="affine4")]
    assert all(
        not each.prefixes for each in measure_table(small.models, small.cloud, plans, three).rows
    )

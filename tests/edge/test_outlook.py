from msgspec.structs import replace

from hybridge.devices.models import LIGHT, RESIZE_LARGE, RESIZE_LIGHT, encode_stage, head_stage
from hybridge.edge.outlook import device_stages, outlook
from hybridge.shared.manifest import Manifest, Precision, Rate, Rates

from ..bundles import CLOUD, CUT, LOCAL, SPLIT, Small

inf = float("inf")


def manifest_of(small: Small) -> Manifest:
    return small.bundle.manifest


def test_stages_of_plans() -> None:
    assert device_stages(LOCAL) == (RESIZE_LIGHT, LIGHT)
    assert device_stages(CLOUD) == (RESIZE_LARGE, encode_stage(CLOUD))
    assert device_stages(SPLIT) == (RESIZE_LARGE, head_stage(CUT, "int8"), encode_stage(SPLIT))


def test_each_row_becomes_an_option_of_its_own_times(small: Small) -> None:
    manifest = manifest_of(small)
    stages = {stage: 2.0**at for at, stage in enumerate(
        (RESIZE_LIGHT, LIGHT, RESIZE_LARGE, head_stage(CUT, "int8"), encode_stage(SPLIT),
         encode_stage(CLOUD))
    )}  # fmt: skip
    tails = {manifest.large.pixels.id: 1000.0, manifest.cut(CUT).contract.id: 500.0}
    options = outlook(
        manifest,
        stage_ms=stages.__getitem__,
        transfer_ms=lambda size: size / 10,
        cloud_ms=tails.__getitem__,
    )
    sizes = {row.parsed(): row.bytes_p95 for row in manifest.table}
    assert sizes[CLOUD] > sizes[SPLIT] > 0
    assert {o.plan: (o.size_bytes, o.device_ms, o.network_ms, o.cloud_ms) for o in options} == {
        LOCAL: (0, 1 + 2, 0, 0),
        SPLIT: (sizes[SPLIT], 4 + 8 + 16, sizes[SPLIT] / 10, 500),
        CLOUD: (sizes[CLOUD], 4 + 32, sizes[CLOUD] / 10, 1000),
    }
    assert [o.agreement for o in options] == [row.agreement for row in manifest.table]


def test_agreements_are_those_of_the_clouds_precision(small: Small) -> None:
    worse = Rates(agreement=Rate.of(70, 100))
    manifest = manifest_of(small)
    table = tuple(
        row if row.parsed() == LOCAL else replace(row, variants={Precision.INT8: worse})
        for row in manifest.table
    )
    manifest = replace(manifest, table=table)
    at_cut = manifest.cut(CUT).contract.id
    options = outlook(
        manifest,
        stage_ms=lambda _: 1.0,
        transfer_ms=lambda _: 1.0,
        cloud_ms=lambda _: 1.0,
        cloud_precision=lambda contract: (
            Precision.INT8 if contract == at_cut else Precision.FLOAT32
        ),
    )
    found = {option.plan: option.agreement for option in options}
    rows = {row.parsed(): row for row in manifest.table}
    assert found[SPLIT] == worse.agreement
    assert {found[plan] == rows[plan].agreement for plan in (LOCAL, CLOUD)} == {True}


def test_out_of_reach_only_the_device_is_left(small: Small) -> None:
    options = outlook(
        manifest_of(small),
        stage_ms=lambda _: 1.0,
        transfer_ms=lambda _: 1.0,
        cloud_ms=lambda _: 1.0,
        reachable=False,
    )
    assert {o.plan for o in options if o.total_ms < inf} == {LOCAL}

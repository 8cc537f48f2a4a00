from __future__ import annotations

import dataclasses

import msgspec
import pytest

from hybridge.devices.boards import board_names
from hybridge.report.inspect.facts import Inspection, inspect_bundle
from hybridge.report.inspect.machines import Link, cloud_of, options_on, pick
from hybridge.report.inspect.tables import (
    TIMES,
    cuts,
    front_plans,
    machines,
    models,
    parts,
    plans,
    quantization,
    shape_words,
)
from hybridge.report.words import NOTHING
from hybridge.shared.bundle import open_bundle
from hybridge.shared.contract import Contract, Part
from hybridge.shared.errors import ConfigError
from hybridge.shared.manifest import BuildRecord, Rate
from hybridge.shared.signing import SigningKey, TrustStore

from ...cloud.bundles import CUT
from ...inspected import COARSE, FINE, JPEG, LOCAL, RAW, write_inspected


def test_plans_have_short_names_by_kind_depth_and_bytes(report: Inspection) -> None:
    assert {each.code: each.plan for each in report.plans} == {
        "D": LOCAL, "S1": COARSE, "S2": FINE, "C1": JPEG, "C2": RAW,
    }  # fmt: skip
    assert [each.plan for each in report.plans_at(CUT)] == [COARSE, FINE]
    assert report.plans_at("") == []


def test_recorded_cuts_from_the_input_on(report: Inspection) -> None:
    early, kept = report.cuts
    assert (early.name, early.kept, early.heads) == ("early", False, ())
    assert (kept.name, kept.kept, kept.heads, kept.elements) == (CUT, True, ("int8",), 128)


def test_an_old_bundle_has_the_cuts_it_kept(report: Inspection) -> None:
    manifest = msgspec.structs.replace(report.bundle.manifest, build=BuildRecord(), format=1)
    old = inspect_bundle(dataclasses.replace(report.bundle, manifest=manifest), graph=report.graph)
    (cut,) = old.cuts
    # conv: 8 x 4 x 4 outputs of 3 x 4 x 4 products; matmul: 128 to 5
    assert cut.work == pytest.approx(8 * 16 * 48 / (8 * 16 * 48 + 128 * 5))
    assert cut.shapes == ((4, 4, 8),)
    assert quantization(old).rows == []
    assert models(old, None).rows[1][5] == NOTHING


def test_a_record_of_a_cut_that_is_not_in_the_bundle(report: Inspection) -> None:
    large = msgspec.structs.replace(report.bundle.manifest.large, cuts=())
    manifest = msgspec.structs.replace(report.bundle.manifest, large=large)
    found = inspect_bundle(dataclasses.replace(report.bundle, manifest=manifest))
    assert {cut.name: cut.fate for cut in found.cuts}[CUT] == "not in the bundle"
    assert found.kept_cuts == []


def test_boards_are_estimated_from_the_first_machine_that_can_tell(report: Inspection) -> None:
    here, *boards = report.machines
    assert (here.here, here.origin, here.has_cloud_part) == (True, "measured", True)
    assert [board.key for board in boards] == list(board_names())
    assert {board.origin for board in boards} == {"estimated"}
    assert cloud_of(report.machines) is here
    assert not any(board.has_cloud_part for board in boards)
    rows = {row[-1]: row for row in machines(report).rows}
    assert rows["raspberry-pi-5"][1] == "estimated"


def test_without_a_yardstick_there_are_no_boards(report: Inspection) -> None:
    (file,) = report.bundle.profiles.iterdir()
    profile = msgspec.json.decode(file.read_bytes())
    file.write_bytes(msgspec.json.encode({**profile, "yardstick_ms": {}}))
    assert len(inspect_bundle(report.bundle).machines) == 1


def test_a_machine_by_name(report: Inspection) -> None:
    assert pick(report.machines, "") is report.machines[0]
    assert pick(report.machines, "raspberry-pi-5").key == "raspberry-pi-5"
    assert pick(report.machines, "pi zero").key == "raspberry-pi-zero-2-w"
    with pytest.raises(ConfigError, match="no machine of the name 'amiga'; there are "):
        pick(report.machines, "amiga")
    with pytest.raises(ConfigError, match="4 machines of the name 'raspberry'"):
        pick(report.machines, "raspberry")
    with pytest.raises(ConfigError, match="run `hybridge profile`"):
        pick([], "")


def test_options_are_the_routers(report: Inspection) -> None:
    machine = report.machines[0]
    link = Link(20.0, 10.0)
    options = options_on(report.bundle.manifest, machine, cloud=machine, link=link, cloud_speed=2.0)
    raw = next(option for option in options if option.plan == RAW)
    assert (raw.device_ms, raw.cloud_ms) == (3.0, 10.0)
    assert raw.network_ms == pytest.approx(20 + 880 * 8 / 10_000)
    local = next(option for option in options if option.plan == LOCAL)
    assert local.total_ms == 5.0
    nowhere = options_on(report.bundle.manifest, machine, cloud=None, link=link, cloud_speed=1.0)
    assert [o.plan for o in nowhere if o.total_ms < float("inf")] == [LOCAL]


@pytest.mark.parametrize(
    ("rtt_ms", "mbps"), [(-1, 1), (1, 0), (float("nan"), 1), (1, float("inf"))]
)
def test_what_is_no_link(rtt_ms: float, mbps: float) -> None:
    with pytest.raises(ConfigError):
        Link(rtt_ms, mbps)


def test_the_front_depends_on_the_machine(report: Inspection) -> None:
    # By bytes and agreement alone the JPEG loses to a split; in device time it is cheaper.
    assert front_plans(report, None) == {str(each) for each in (LOCAL, COARSE, FINE, RAW)}
    assert front_plans(report, report.machines[0]) == {
        str(each) for each in (LOCAL, COARSE, FINE, JPEG, RAW)
    }


def test_labels_of_some_pictures_are_counted(report: Inspection) -> None:
    (first, *rest) = report.bundle.manifest.table
    few = msgspec.structs.replace(first, accuracy=Rate.of(3, 5))
    table = tuple(msgspec.structs.replace(row, accuracy=None) for row in rest)
    manifest = msgspec.structs.replace(report.bundle.manifest, table=(few, *table))
    found = inspect_bundle(dataclasses.replace(report.bundle, manifest=manifest))
    assert found.measured_on == f"{first.agreement.samples} pictures, 5 of them labelled"
    assert plans(found, None).title.split(";")[0].endswith(found.measured_on)
    bare = msgspec.structs.replace(manifest, table=table)
    unlabelled = inspect_bundle(dataclasses.replace(report.bundle, manifest=bare))
    assert unlabelled.measured_on == f"{first.agreement.samples} pictures"


def test_tables_in_words(report: Inspection) -> None:
    (first, second) = cuts(report, report.machines[0]).rows
    assert first[-1] == "no fewer bytes than a later cut"
    assert (second[0], second[2], second[5], second[7], second[-1]) == (
        CUT, "128\u00a0B", "6.0", "3.0", "kept",
    )  # fmt: skip
    (tried,) = quantization(report).rows
    assert tried[:3] == ("large", "int8", "static/min_max")
    assert tried[-2:] == ("HARD_SWISH", "chosen")
    remarks = models(report, report.machines[0]).rows[1][-1]
    assert remarks == "cuts end here: NonZero; keras: no <b>"
    assert "light model" in {row[0] for row in parts(report).rows}


def test_nobody_timed_it(
    tmp_path_factory: pytest.TempPathFactory, key: SigningKey, trust: TrustStore
) -> None:
    path = write_inspected(tmp_path_factory.mktemp("untimed"), key, timed=False)
    found = inspect_bundle(open_bundle(path, trust=trust))
    assert found.machines == ()
    assert machines(found).rows == []
    assert front_plans(found, None) == {str(each) for each in (LOCAL, COARSE, FINE, RAW)}


def test_a_cut_of_several_tensors(report: Inspection) -> None:
    manifest = report.bundle.manifest
    cut = manifest.large.cuts[0]
    tensors = tuple(
        Part(tensor=tensor, shape=shape, scale=0.1, zero_point=0)
        for tensor, shape in (("conv", (4, 4, 8)), ("scaled", (16, 16, 3)))
    )
    both = Contract(tensor="both", shape=(896,), dtype="INT8", model="x", parts=tensors)
    large = msgspec.structs.replace(
        manifest.large, cuts=(msgspec.structs.replace(cut, contract=both),)
    )
    old = msgspec.structs.replace(manifest, large=large, build=BuildRecord())
    (found,) = inspect_bundle(
        dataclasses.replace(report.bundle, manifest=old), graph=report.graph
    ).cuts
    assert (found.tensors, found.elements) == (("conv", "scaled"), 896)
    assert shape_words(found.shapes) == f"4{TIMES}4{TIMES}8 + 16{TIMES}16{TIMES}3"
    assert found.work == pytest.approx(8 * 16 * 48 / (8 * 16 * 48 + 128 * 5))


def test_times_of_what_was_quantized(report: Inspection) -> None:
    assert "ms" not in quantization(report).columns
    (file,) = report.bundle.profiles.iterdir()
    profile = msgspec.json.decode(file.read_bytes())
    stages = profile["stages"]
    for name, ms in (("large/float32", 12.0), ("large/int8", 5.0)):
        stages[name] = {**stages["light"], "p50_ms": ms}
    file.write_bytes(msgspec.json.encode(profile))
    found = quantization(inspect_bundle(report.bundle))
    assert found.rows[0][found.columns.index("ms")] == "12 \u2192 5.0"
    for name, ms in (("large/float32", 10.0), ("large/int8", 4.0)):
        stages[name]["cpu_ms"] = ms  # what other processes took of it is not in there
    file.write_bytes(msgspec.json.encode(profile))
    found = quantization(inspect_bundle(report.bundle))
    assert found.rows[0][found.columns.index("ms")] == "10 \u2192 4.0"


def test_what_was_chosen_says_what_it_was_before(report: Inspection) -> None:
    found = quantization(report)
    (row,) = found.rows
    told = dict(zip(found.columns, row, strict=True))
    assert told["size"] == "21.2\u00a0kB \u2192 5.3\u00a0kB"
    assert told["accuracy"].startswith("88.0 \u2192 86.7 \u00b1")


def test_nobody_had_labels(report: Inspection) -> None:
    manifest = report.bundle.manifest
    table = tuple(msgspec.structs.replace(row, accuracy=None) for row in manifest.table)
    bare = msgspec.structs.replace(manifest, table=table)
    found = inspect_bundle(dataclasses.replace(report.bundle, manifest=bare))
    assert "accuracy" in plans(report, None).columns
    assert "accuracy" not in plans(found, None).columns

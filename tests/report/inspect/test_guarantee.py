from __future__ import annotations

import dataclasses

import msgspec

from hybridge.report.inspect.facts import Inspection, inspect_bundle
from hybridge.report.inspect.guarantee import ALPHAS, guarantee, guarantee_json, summary
from hybridge.report.words import NOTHING, SPACE
from hybridge.shared.calibration import Calibration

from ...inspected import CALIBRATION


def without_record(report: Inspection) -> Inspection:
    manifest = report.bundle.manifest
    light = msgspec.structs.replace(manifest.light, calibration=None)
    manifest = msgspec.structs.replace(manifest, light=light)
    return inspect_bundle(dataclasses.replace(report.bundle, manifest=manifest))


def test_a_row_per_level(report: Inspection) -> None:
    rows = guarantee(report).rows
    assert [row[0] for row in rows] == [
        f"{words}{SPACE}%" for words in ("0.5", "1", "2", "5", "10")
    ]
    for row in rows[:2]:
        assert row[1:5] == (NOTHING,) * 4
        assert row[5].startswith("needs about ")
    assert rows[1][5].endswith(" pictures (299 if all agreed)")
    # The most confident 199 agree; with the group of 0.7, five of 205 differ, too many for 2 %.
    assert rows[2] == (f"2{SPACE}%", "0.701000", f"47{SPACE}%", "0 of 199", f"1.49{SPACE}%", "")
    assert guarantee(report).title.endswith(", from 420 pictures")


def test_the_same_for_programs(report: Inspection) -> None:
    found = guarantee_json(report.bundle.calibration)
    assert found is not None
    assert [each["alpha"] for each in found] == list(ALPHAS)
    assert [each["confidence"] is None for each in found] == [True, True, False, False, False]
    assert found[0]["needs_pictures"] > 598
    assert found[2]["confidence"] == 0.701
    assert found[2]["upper"] <= 0.02


def test_a_bundle_without_a_record(report: Inspection) -> None:
    old = without_record(report)
    assert guarantee(old).rows == []
    assert guarantee_json(old.bundle.calibration) is None


def test_what_a_build_says() -> None:
    said = summary(CALIBRATION).replace(SPACE, " ")
    assert said.startswith("cascade: of the answers from confidence 0.701000 on (47 % of the pict")
    assert "at most 2 % differ, with confidence 95 %; 1 % needs about" in said
    few = summary(Calibration(agreed=(0.9,) * 4, differed=())).replace(SPACE, " ")
    assert few == (
        "cascade: no guarantee from 4 evaluation pictures; the weakest, 10 %, needs about "
        "29 pictures (29 if all agreed)"
    )
    bad = summary(Calibration(agreed=(0.5,) * 90, differed=(0.9,) * 40)).replace(SPACE, " ")
    assert bad.endswith("10 %, is out of reach: even the most confident quarter differs too often")

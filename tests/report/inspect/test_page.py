"""The page: everything is on it, nothing of a bundle can break it, and it needs no network."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re

import msgspec
import pytest
import quickjs

from hybridge.report.inspect.facts import Inspection, inspect_bundle
from hybridge.report.inspect.machines import Link
from hybridge.report.inspect.page import render
from hybridge.shared.bundle import open_bundle
from hybridge.shared.manifest import BuildRecord, Manifest, Precision, Rate, Rates, Runtime, Variant
from hybridge.shared.signing import SigningKey, TrustStore
from hybridge.shared.tensor import TensorSpec

from ...cloud.bundles import CUT
from ...inspected import ROWS, write_inspected
from ..test_demo import HOSTILE, Page

LINKS = {"lte": Link(51.0, 11.4), "wifi": Link(8.5, 52.0)}


def page_of(report: Inspection, *, budget_ms: float = 100.0) -> str:
    machine = report.machines[0] if report.machines else None
    return render(report, machine=machine, link=LINKS["lte"], budget_ms=budget_ms, links=LINKS)


def changed(report: Inspection, manifest: Manifest) -> Inspection:
    return inspect_bundle(dataclasses.replace(report.bundle, manifest=manifest), graph=report.graph)


def test_everything_is_on_it(report: Inspection) -> None:
    page = Page(page_of(report))
    for plan in ROWS:
        assert str(plan) in page.text
    for words in (
        "tiny 1",
        report.bundle.sha256,
        CUT,
        "no fewer bytes than a later cut",
        "HARD_SWISH",
        "cuts end here: NonZero",
        "Raspberry Pi 5",
        "estimated",
        "taken: the best agreement that fits",
    ):
        assert words in page.text, words
    assert page.count("h1") == 1


def test_it_needs_no_network(report: Inspection) -> None:
    text = page_of(report)
    page = Page(text)
    for _, values in page.tags:
        assert "src" not in values
        assert (values.get("href") or "#").startswith("#")
    assert "@import" not in text
    assert "url(" not in text
    assert "https://" not in text.replace("http://www.w3.org", "")
    (policy,) = [v["content"] for _, v in page.tags if v.get("http-equiv")]
    assert (policy or "").startswith("default-src 'none'")


def test_the_policy_admits_exactly_our_script(report: Inspection) -> None:
    text = page_of(report)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_the_script_is_javascript(report: Inspection) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", page_of(report), re.DOTALL)
    context = quickjs.Context()
    context.eval(f"(() => {{ {script} }})")  # read, not run: it wants a document
    with pytest.raises(quickjs.JSException):
        context.eval("(() => { const = 1 })")


def data_of(text: str) -> dict[str, object]:
    (found,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL
    )
    data: dict[str, object] = json.loads(found)
    return data


def test_the_scripts_figures_stand_in_the_order_of_the_table(report: Inspection) -> None:
    text = page_of(report)
    data = data_of(text)
    plans, machines = data["plans"], data["machines"]
    assert isinstance(plans, list)
    assert isinstance(machines, list)
    assert [each["plan"] for each in plans] == [each.row.plan for each in report.plans]
    assert machines[0]["device_ms"] == [5.0, 9.0, 9.0, 3.0, 3.0]
    by_rank = sorted(plans, key=lambda each: each["rank"])
    assert [each["plan"] for each in by_rank] == [str(plan) for plan in sorted(ROWS)]
    assert machines[0]["heads"] == {f"{CUT}/int8": 6.0}
    rows = [v["data-plan"] for _, v in Page(text).tags if "data-plan" in v]
    assert rows == [str(place) for place in range(len(plans))]


def test_controls_have_names(report: Inspection) -> None:
    page = Page(page_of(report))
    labelled = {values["for"] for tag, values in page.tags if tag == "label"}
    controls = {values["id"] for tag, values in page.tags if tag in ("input", "select")}
    assert controls <= labelled
    for tag, values in page.tags:
        if tag == "svg":
            assert values.get("aria-hidden") == "true" or values.get("aria-label")


def test_nothing_of_a_bundle_can_break_it(report: Inspection) -> None:
    manifest = report.bundle.manifest
    record = manifest.build.cuts[0]
    build = msgspec.structs.replace(
        manifest.build,
        cuts=(msgspec.structs.replace(record, fate=HOSTILE), manifest.build.cuts[1]),
        quantized=(msgspec.structs.replace(manifest.build.quantized[0], method=HOSTILE),),
    )
    hostile = msgspec.structs.replace(manifest, build=build, provenance={HOSTILE: HOSTILE})
    page = Page(page_of(changed(report, hostile)))
    assert page.count("script") == 2
    assert HOSTILE in " ".join(page.texts)


def test_no_cut_was_kept(report: Inspection) -> None:
    manifest = report.bundle.manifest
    whole = msgspec.structs.replace(
        manifest,
        large=msgspec.structs.replace(manifest.large, cuts=()),
        table=tuple(row for row in manifest.table if not row.plan.startswith("split")),
        build=BuildRecord(),
    )
    page = Page(page_of(changed(report, whole)))
    assert "served whole: no cut was kept" in page.text
    assert "the picture to the answer" in page.text


def test_the_device_alone(report: Inspection) -> None:
    manifest = report.bundle.manifest
    alone = msgspec.structs.replace(manifest, table=manifest.table[:1])
    assert "What each plan gives and costs" in Page(page_of(changed(report, alone))).text


def test_nobody_timed_it(
    tmp_path_factory: pytest.TempPathFactory, key: SigningKey, trust: TrustStore
) -> None:
    path = write_inspected(tmp_path_factory.mktemp("untimed"), key, timed=False)
    page = Page(page_of(inspect_bundle(open_bundle(path, trust=trust))))
    assert "No machine has timed this bundle yet" in page.text
    assert "controls" not in {values.get("id") for _, values in page.tags}


def test_a_budget_nothing_fits(report: Inspection) -> None:
    text = Page(page_of(report, budget_ms=0.5)).text
    assert "nothing fits: the device answers as it can (it takes 5.0 ms)" in text


def test_the_same_again(report: Inspection) -> None:
    assert page_of(report) == page_of(report)


def test_a_cloud_of_another_precision_and_tensors_beside(report: Inspection) -> None:
    manifest = report.bundle.manifest
    large = manifest.large
    variant = Variant(
        whole=large.whole,
        weights=large.weights,
        weights_index=large.weights_index,
        tails={CUT: large.cuts[0].tail},
    )
    spec = TensorSpec("patient", "FP32", (2,))
    by_torch = msgspec.structs.replace(variant, runtime=Runtime.TORCH)
    variants = {Precision.INT8: variant, Precision.BFLOAT16: by_torch}
    large = msgspec.structs.replace(large, variants=variants, inputs=(spec,))
    rows = tuple(
        msgspec.structs.replace(row, variants={Precision.INT8: Rates(agreement=Rate.of(75, 150))})
        for row in manifest.table
    )
    made = msgspec.structs.replace(manifest, large=large, table=rows)
    text = Page(page_of(changed(report, made))).text
    assert "int8 cloud 50.0 ± 4.0 %" in text.replace("\u00a0", " ")
    assert "patient FP32 [2] beside" in text
    assert "whole and tails, int8" in text
    assert "whole and tails, bfloat16" not in text
    assert "The cloud's part in each precision" in text
    assert "float32's, converted" in text.replace("\u00a0", " ")


def test_times_stand_there_without_the_script(report: Inspection) -> None:
    text = page_of(report)
    assert f'<dd data-head="{CUT}/int8">6.0\u00a0ms</dd>' in text
    shown = re.findall(r'<td class="num device-ms">([^<]*)</td>', text)
    assert shown == ["5.0", "9.0", "9.0", "3.0", "3.0"]
    board = next(each for each in report.machines if each.origin == "estimated")
    other = render(report, machine=board, link=LINKS["lte"], budget_ms=100.0, links=LINKS)
    assert re.search(rf'<dd data-head="{CUT}/int8">[\d.]+\u00a0ms\u00a0est\.</dd>', other)


def test_a_machine_that_timed_nothing_of_it(report: Inspection) -> None:
    (file,) = report.bundle.profiles.iterdir()
    file.write_bytes(msgspec.json.encode({**msgspec.json.decode(file.read_bytes()), "stages": {}}))
    text = page_of(inspect_bundle(report.bundle, graph=report.graph))
    assert "inf" not in re.findall(r'<td class="num">([^<]*)</td>', text)
    assert "nothing fits: the device answers as it can (untimed)" in Page(text).text

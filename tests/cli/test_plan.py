import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hybridge.cli.main import main
from hybridge.devices.probe import probe
from hybridge.devices.profile import load_profile, save_profile, tail_stage
from hybridge.report.words import NOTHING
from hybridge.shared.bundle import Bundle

from ..bundles import NAME

Capture = pytest.CaptureFixture[str]


def planned(capsys: Capture, *arguments: str) -> dict[str, Any]:
    """What `hybridge plan --json` says; strictly JSON, which knows no Infinity."""
    assert main(["plan", NAME, "--json", *arguments]) == 0

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    said: dict[str, Any] = json.loads(capsys.readouterr().out, parse_constant=refuse)
    return said


def taken(said: dict[str, Any]) -> str:
    first, *others = said["plans"]
    assert first["reason"].startswith("taken")
    assert not any(other["reason"].startswith("taken") for other in others)
    return str(first["plan"])


def test_the_table_on_a_link(bundle: Bundle, capsys: Capture) -> None:
    said = planned(capsys, "--budget", "1000", "--rtt", "20", "--mbps", "10")
    assert (said["bundle"], said["version"], said["budget_ms"]) == (NAME, "1", 1000)
    assert (said["rtt_ms"], said["mbps"]) == (20, 10)
    rows = {row["plan"]: row for row in said["plans"]}
    assert set(rows) == {row.plan for row in bundle.manifest.table}
    cloud = rows["cloud:raw"]
    assert cloud["network_ms"] == pytest.approx(20 + cloud["bytes"] * 8e-3 / 10)
    assert (cloud["agreement"], cloud["standard_error"]) == (1.0, 0.01)
    profile = load_profile(bundle.profiles, probe(), bundle_sha256=bundle.sha256)
    assert profile is not None
    assert cloud["cloud_ms"] == pytest.approx(profile.stages[tail_stage("")].p95_ms)
    for row in rows.values():
        total_ms = row["device_ms"] + row["network_ms"] + row["cloud_ms"]
        assert row["total_ms"] == pytest.approx(total_ms)
    assert rows["local"]["total_ms"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("arguments", "plan"),
    [
        (["--budget", "3000", "--link", "3g"], "cloud:raw"),
        (["--budget", "100", "--link", "3g"], "local"),
        (["--budget", "100", "--rtt", "5", "--mbps", "0.05"], "split:c01-2x2x12/int8/affine4"),
        (["--budget", "0.01"], "local"),
        (["--budget", "3000", "--link", "3g", "--stay-local"], "local"),
        (["--budget", "3000", "--link", "3g", "--bytes-per-hour", "0"], "local"),
        (["--budget", "3000", "--objective", "bytes", "--min-agreement", "0.01"], "local"),
    ],
)
def test_which_plan_is_taken(
    bundle: Bundle, capsys: Capture, arguments: list[str], plan: str
) -> None:
    assert taken(planned(capsys, *arguments)) == plan


def test_a_quicker_cloud(bundle: Bundle, capsys: Capture) -> None:
    slow, quick = (
        {row["plan"]: row for row in planned(capsys, "--cloud-speed", speed)["plans"]}
        for speed in ("1", "4")
    )
    assert quick["cloud:raw"]["cloud_ms"] == pytest.approx(slow["cloud:raw"]["cloud_ms"] / 4)
    assert quick["local"] == slow["local"]


def test_for_people_it_is_a_table(bundle: Bundle, capsys: Capture) -> None:
    assert main(["plan", str(bundle.path), "--budget", "2000"]) == 0
    said = capsys.readouterr().out
    assert "small: 2000 ms on 51 ms / 11.4 Mbit/s" in said
    assert "taken: the best agreement that fits" in said
    for row in bundle.manifest.table:
        assert row.plan in said


def test_the_bundles_own_budget(bundle: Bundle, capsys: Capture) -> None:
    assert planned(capsys)["budget_ms"] == bundle.manifest.default_budget_ms


def without_cloud_stages(bundle: Bundle) -> None:
    """As on a device that did not build the bundle."""
    profile = load_profile(bundle.profiles, probe(), bundle_sha256=bundle.sha256)
    assert profile is not None
    stages = {name: time for name, time in profile.stages.items() if "tail" not in name}
    del stages[tail_stage("")]
    save_profile(msgspec.structs.replace(profile, stages=stages), bundle.profiles)


def test_the_clouds_times_are_those_of_who_built_the_bundle(
    bundle: Bundle, capsys: Capture
) -> None:
    built = planned(capsys)
    profile = load_profile(bundle.profiles, probe(), bundle_sha256=bundle.sha256)
    assert profile is not None
    builder = msgspec.structs.replace(profile.device, processor="the builder's")
    save_profile(msgspec.structs.replace(profile, device=builder), bundle.profiles)
    without_cloud_stages(bundle)
    assert planned(capsys) == built


def test_times_nobody_measured_are_null(bundle: Bundle, capsys: Capture) -> None:
    without_cloud_stages(bundle)
    said = planned(capsys, "--budget", "5000")
    assert taken(said) == "local"
    assert all(row["cloud_ms"] is None for row in said["plans"] if row["plan"] != "local")
    assert main(["plan", NAME]) == 0
    said_to_people = capsys.readouterr().out
    assert NOTHING in said_to_people
    assert " inf " not in said_to_people


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nothing"], 66, "unknown model: no bundle 'nothing'"),
        ([NAME, "--budget", "0"], 65, "bad latency budget: 0 ms"),
        ([NAME, "--budget", "-5"], 65, "bad latency budget: -5 ms"),
        ([NAME, "--budget", "1e9"], 65, "at most"),
        ([NAME, "--budget", "nan"], 65, "bad latency budget: nan ms"),
        ([NAME, "--rtt", "-1"], 78, "a round trip of 0 ms or more"),
        ([NAME, "--rtt", "nan"], 78, "a round trip of 0 ms or more"),
        ([NAME, "--mbps", "0"], 78, "more than 0 Mbit/s"),
        ([NAME, "--mbps", "inf"], 78, "more than 0 Mbit/s"),
        ([NAME, "--cloud-speed", "nan"], 78, "must be above 0"),
        ([NAME, "--trust", "/nowhere.pub"], 78, "holds no Ed25519 public key"),
    ],
)
def test_what_cannot_be_planned(
    bundle: Bundle, capsys: Capture, arguments: list[str], code: int, words: str
) -> None:
    assert main(["plan", *arguments]) == code
    said = capsys.readouterr()
    assert words in said.err
    assert said.out == ""


def test_a_machine_that_was_never_measured(bundle: Bundle, capsys: Capture) -> None:
    for file in bundle.profiles.iterdir():
        file.unlink()
    assert main(["plan", NAME]) == 78
    assert "no profile of the bundle" in capsys.readouterr().err


def test_an_altered_bundle(bundle: Bundle, capsys: Capture) -> None:
    bundle.file(bundle.manifest.labels).write_text("cat")
    assert main(["plan", NAME]) == 65
    assert "bad bundle: blob" in capsys.readouterr().err


def test_a_strangers_bundle(bundle: Bundle, home: Path, capsys: Capture) -> None:
    own = home / "keys" / "signing.key"
    seed = own.read_bytes()
    own.unlink()
    assert main(["plan", NAME]) == 65
    assert "whom this machine does not trust" in capsys.readouterr().err
    own.write_bytes(seed)
    assert main(["plan", NAME, "--json"]) == 0
    assert math.isfinite(json.loads(capsys.readouterr().out)["budget_ms"])


def test_what_is_asked_for_is_told(bundle: Bundle, capsys: Capture) -> None:
    said = planned(capsys, "--objective", "energy", "--min-agreement", "0.97")
    assert (said["objective"], said["min_agreement"]) == ("energy", 0.97)
    assert all(row["energy_j"] >= 0 for row in said["plans"])
    assert (said["light_threshold"] is None) == bool(said["light_refusal"])
    assert main(["plan", NAME, "--objective", "cost"]) == 78
    assert "--price-per-gb" in capsys.readouterr().err

"""`hybridge probe`, `key` and `profile`: what this machine says of itself."""

import json
from pathlib import Path

import msgspec
import pytest

from hybridge.cli.main import main
from hybridge.devices.probe import probe
from hybridge.devices.profile import load_profile, tail_stage
from hybridge.shared.bundle import Bundle
from hybridge.shared.signing import TrustStore

from ..bundles import NAME, Small

Capture = pytest.CaptureFixture[str]


def test_probe(capsys: Capture) -> None:
    device = probe()
    assert main(["probe", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said.pop("fingerprint") == device.fingerprint
    assert said == json.loads(msgspec.json.encode(device))
    assert main(["probe"]) == 0
    assert device.fingerprint in capsys.readouterr().out


def test_key(small: Small, home: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["key", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"public_key": small.key.public_hex}
    assert main(["key"]) == 0
    said = capsys.readouterr().out
    assert said == f"{small.key.public_hex}\n"
    (tmp_path / "friend.pub").write_text(said)  # as the help says
    assert TrustStore.read(tmp_path).keys == {small.key.public_hex}


def test_profile_replaces_what_it_measures_and_keeps_the_rest(
    bundle: Bundle, capsys: Capture
) -> None:
    before = load_profile(bundle.profiles, probe(), bundle_sha256=bundle.sha256)
    assert main(["profile", NAME, "--runs", "10", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    after = load_profile(bundle.profiles, probe(), bundle_sha256=bundle.sha256)
    assert before is not None
    assert after is not None
    assert set(after.stages) == set(before.stages)
    assert after.stages[tail_stage("")] == before.stages[tail_stage("")]
    assert after.stages["light"].runs == 10
    assert said["stages"]["light"]["p50_ms"] == after.stages["light"].p50_ms
    assert Path(said["file"]).parent == bundle.profiles


def test_profile_refuses_what_tells_nothing(bundle: Bundle, capsys: Capture) -> None:
    assert main(["profile", NAME, "--runs", "9"]) == 78
    assert main(["profile", NAME, "--threads", "0"]) == 78
    assert main(["profile", "nothing"]) == 66

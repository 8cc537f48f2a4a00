"""Boards on the command line, and profiles for several threads."""

import json

import msgspec
import pytest

from hybridge.cli.main import main
from hybridge.devices import profiling
from hybridge.devices.boards import Kind, board_names, read_board, read_reference
from hybridge.devices.conditions import Conditions
from hybridge.devices.probe import probe
from hybridge.devices.profile import Profile, load_profile, load_profiles, save_profile
from hybridge.shared.bundle import Bundle

from ..bundles import NAME

Capture = pytest.CaptureFixture[str]
PI = read_board("raspberry-pi-4")


def own(bundle: Bundle) -> Profile:
    profile = load_profile(bundle.profiles, probe(), bundle_sha256=bundle.sha256)
    assert profile is not None
    return profile


@pytest.fixture
def comparable(bundle: Bundle) -> Bundle:
    """A bundle whose profile says how fast its machine is: as fast as the reference machine."""
    profile = own(bundle)
    yardstick_ms = read_reference().yardstick_ms
    save_profile(msgspec.structs.replace(profile, yardstick_ms=yardstick_ms), bundle.profiles)
    return bundle


def test_the_boards(capsys: Capture) -> None:
    assert main(["profile", "--boards"]) == 0
    said = capsys.readouterr().out
    assert "ESTIMATED" in said
    assert all(name in said for name in board_names())
    assert main(["profile", "--boards", "--json"]) == 0
    boards = {board["name"]: board for board in json.loads(capsys.readouterr().out)["boards"]}
    assert set(boards) == set(board_names())
    pi = boards[PI.name]
    assert pi["origin"] == "estimated"
    assert pi["factors"]["int8"] == pytest.approx(PI.factor(Kind.INT8), abs=0.01)
    assert pi["sources"]["xnnpack"]["url"].startswith("https://")


def test_an_estimate_is_shown_and_not_kept(comparable: Bundle, capsys: Capture) -> None:
    files = {file: file.read_bytes() for file in comparable.profiles.iterdir()}
    assert main(["profile", NAME, "--board", PI.name]) == 0
    shown = capsys.readouterr()
    assert "ESTIMATED for a Raspberry Pi 4" in shown.out
    assert "nobody measured this" in shown.out
    assert "https://github.com/google/XNNPACK" in shown.err
    assert main(["profile", NAME, "--board", PI.name, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["origin"] == "estimated"
    assert said["board"] == PI.name
    assert said["stages"]["light"]["p50_ms"] == pytest.approx(
        own(comparable).stages["light"].p50_ms * PI.factor(Kind.INT8)
    )
    assert {file: file.read_bytes() for file in comparable.profiles.iterdir()} == files


def test_a_plan_for_a_board(comparable: Bundle, capsys: Capture) -> None:
    assert main(["plan", NAME, "--budget", "2000", "--json"]) == 0
    here = json.loads(capsys.readouterr().out)
    assert main(["plan", NAME, "--budget", "2000", "--board", PI.name, "--json"]) == 0
    there = json.loads(capsys.readouterr().out)
    assert (here["device_times"], there["device_times"]) == ("measured", "estimated")
    assert "Raspberry Pi 4" in there["device"]
    times = [{row["plan"]: row for row in said["plans"]} for said in (here, there)]
    assert times[1]["local"]["device_ms"] > 3 * times[0]["local"]["device_ms"]
    assert times[1]["cloud:raw"]["cloud_ms"] == times[0]["cloud:raw"]["cloud_ms"]
    assert main(["plan", NAME, "--budget", "2000", "--board", PI.name]) == 0
    assert "ESTIMATED for a Raspberry Pi 4" in capsys.readouterr().out


def test_the_quietest_machine_is_estimated_from(comparable: Bundle, capsys: Capture) -> None:
    quiet = own(comparable)
    busy = msgspec.structs.replace(
        quiet,
        device=msgspec.structs.replace(quiet.device, processor="another"),
        stages={name: stage.scaled(10) for name, stage in quiet.stages.items()},
        conditions=Conditions(others_busy=0.9),
    )
    save_profile(busy, comparable.profiles)
    assert main(["profile", NAME, "--board", PI.name, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["stages"]["light"]["p50_ms"] == pytest.approx(
        quiet.stages["light"].p50_ms * PI.factor(Kind.INT8)
    )


@pytest.mark.parametrize("command", ["profile", "plan"])
def test_what_nothing_can_be_estimated_from(bundle: Bundle, capsys: Capture, command: str) -> None:
    assert main([command, NAME, "--board", "raspberry-pi-9"]) == 78
    assert "no board 'raspberry-pi-9' is known" in capsys.readouterr().err
    assert main([command, NAME, "--board", PI.name]) == 78  # its profile has no yardstick
    assert "run `hybridge profile" in capsys.readouterr().err


def test_a_bundle_must_be_named(capsys: Capture) -> None:
    assert main(["profile"]) == 78
    assert "which bundle?" in capsys.readouterr().err


def test_another_number_of_threads_is_another_profile(bundle: Bundle, capsys: Capture) -> None:
    assert main(["plan", NAME, "--threads", "2"]) == 78
    assert f"profile {bundle.path} --threads 2" in capsys.readouterr().err
    before = own(bundle)
    slow = {name: stage.scaled(1e4) for name, stage in before.stages.items()}
    save_profile(msgspec.structs.replace(before, threads=2, stages=slow), bundle.profiles)
    assert main(["profile", NAME, "--runs", "10", "--threads", "2"]) == 0
    said = capsys.readouterr().out
    assert "2 threads" in said
    assert f"was {slow['light'].p50_ms:.2f}" in said
    assert "all that an edge loads" in said
    assert own(bundle) == before
    threads = sorted(
        each.threads for each in load_profiles(bundle.profiles, bundle_sha256=bundle.sha256)
    )
    assert threads == [1, 2]
    assert main(["plan", NAME, "--threads", "2", "--json"]) == 0


def test_a_damaged_profile_is_told_before_anything_is_measured(
    bundle: Bundle, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(profiling, "_in_process")
    (file,) = bundle.profiles.iterdir()
    file.write_text("{")
    assert main(["profile", NAME]) == 78
    assert f"{file} is no device profile" in capsys.readouterr().err

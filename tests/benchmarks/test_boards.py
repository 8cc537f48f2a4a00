import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import simulation
from wan.answers import answers_of
from wan.boards import Finished, world_of
from wan.laboratory import Calibration
from wan.links import find_link
from wan.pairs import Pair
from wan.records import Cell, Measured
from wan.simulator import World, simulate

from hybridge.devices.models import stage_names
from hybridge.devices.probe import probe
from hybridge.devices.profile import Profile, StageTime, save_profile, tail_stage
from hybridge.shared.bundle import Bundle, open_bundle
from hybridge.shared.errors import ConfigError

from ..bundles import CLOUD, Small

RATE_HZ, SHARE, WORK_MS, DECODE_MS = 10.0, 0.25, 1.0, 0.5
LOCAL = Cell("small", "lte", 400.0, "local", 40, RATE_HZ)
ASKING = replace(LOCAL, policy=f"fixed:{CLOUD}", budget_ms=2_000.0)


def save_times(bundle: Bundle, folder: Path, *, ms: float = WORK_MS) -> None:
    """A profile in which every stage, the cloud's too, takes so much of the processor."""
    tails = [tail_stage(row.parsed().cut) for row in bundle.manifest.table]
    names = {*stage_names(bundle.manifest), *tails}
    times = StageTime(p50_ms=2 * ms, p95_ms=3 * ms, p999_ms=4 * ms, runs=20, cpu_ms=ms)
    profile = Profile(
        device=probe(), bundle_sha256=bundle.sha256, stages=dict.fromkeys(names, times)
    )
    save_profile(profile, folder)


@pytest.fixture
def pair(small: Small, tmp_path: Path) -> Pair:
    path = small.rewrite(tmp_path / "bundles", lambda manifest: manifest)
    bundle = open_bundle(path, trust=small.trust)
    save_times(bundle, bundle.profiles)
    pictures = sorted((small.root.parent / "evaluation").glob("*.png"))
    return Pair("small", bundle, tuple(pictures))


def made_world(pair: Pair, folder: Path) -> World:
    answers = answers_of(pair.bundle, pair.pictures, cache=folder)
    kept = folder / "decode.json"
    kept.write_text(json.dumps({"decode_ms": DECODE_MS}))
    return world_of(pair, answers, share=SHARE, kept=kept)


def finished(pair: Pair, world: World, folder: Path) -> None:
    """What a laboratory would have left: beside the stages 1.5 ms a request, 3 more if it asked."""
    for cell, beside_ms in ((LOCAL, 1.5), (ASKING, 4.5)):
        measured = simulate(cell, world, link=find_link(cell.link))
        records = [
            replace(r, steps_ms=r.steps_ms | {"decode": DECODE_MS}) for r in measured.records
        ]
        assert {(record.plan, record.fallback) for record in records} == {
            (cell.policy.removeprefix("fixed:"), "")
        }
        runs = sum(2 * ("light" in r.steps_ms) + 2 * ("encode" in r.steps_ms) for r in records)
        used_ms = DECODE_MS + WORK_MS * runs / len(records) + beside_ms
        Measured(cell, records, {"edge_cpu_share": used_ms * cell.rate_hz / 1e3}).save(folder)
    calibration = Calibration(30.0, 40.0, 40.0, capacity_hz=50.0, cpu_share=SHARE)
    (folder / f"calibration_small_{SHARE:g}.json").write_text(json.dumps(asdict(calibration)))
    manifest = pair.bundle.manifest
    save_times(
        pair.bundle, folder / f"bundles-{SHARE:g}" / manifest.name / manifest.version / "profiles"
    )


def test_a_board_made_of_a_profile_knows_its_own_quota(pair: Pair, tmp_path: Path) -> None:
    world = made_world(pair, tmp_path)
    assert set(world.board.work_ms.values()) == {WORK_MS}
    assert world.board.known.keys() == world.board.work_ms.keys()
    assert set(world.tails_ms.values()) == {WORK_MS}
    assert 0 < world.board.capacity_hz < 1e3 * SHARE / (2 * WORK_MS + DECODE_MS)


def test_decoding_is_measured_once(pair: Pair, tmp_path: Path) -> None:
    answers, kept = answers_of(pair.bundle, pair.pictures, cache=tmp_path), tmp_path / "decode.json"
    once, again = (world_of(pair, answers, share=SHARE, kept=kept) for _ in range(2))
    assert once.board == again.board
    assert once.board.decode_ms > 0


def test_a_laboratorys_board_is_found_in_what_it_left(pair: Pair, tmp_path: Path) -> None:
    world, folder = made_world(pair, tmp_path), tmp_path / "lab"
    folder.mkdir()
    finished(pair, world, folder)
    board = Finished.read(folder, pair, share=SHARE).world(pair.bundle, world.answers).board
    assert board.decode_ms == DECODE_MS
    assert board.outside_ms + board.inside_ms == pytest.approx(1.5)
    assert board.exchange_ms == pytest.approx(3.0)
    assert board.known["light"].p50_ms == 2 * WORK_MS
    assert board.share == SHARE
    spread = [board.work_ms[stage] for stage in stage_names(pair.bundle.manifest)]
    assert spread == pytest.approx([WORK_MS] * len(spread), rel=0.06)


@pytest.mark.parametrize(("factor", "taken"), [(0.5, 0.5), (2.0, 1.0)])
def test_stages_that_were_quicker_than_their_profile_are_taken_so(
    pair: Pair, tmp_path: Path, factor: float, taken: float
) -> None:
    """Those that hardly ran are as much quicker as the others; slower than it none is."""
    world, folder = made_world(pair, tmp_path), tmp_path / "lab"
    folder.mkdir()
    finished(pair, world, folder)
    for file in folder.glob("*hz_seed*.json"):
        cell = Measured.read(file)
        records = [
            replace(r, steps_ms={step: factor * ms for step, ms in r.steps_ms.items()})
            for r in cell.records
        ]
        Measured(cell.cell, records, cell.circumstances).save(folder)
    works_ms = Finished.read(folder, pair, share=SHARE).world(pair.bundle, world.answers)
    found = list(works_ms.board.work_ms.values())
    assert found == pytest.approx([taken * WORK_MS] * len(found), rel=0.1)


def test_where_no_laboratory_was_one_is_told(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no laboratory of small"):
        Finished.read(tmp_path, pair, share=SHARE)


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_benchmark_simulates_a_matrix_and_a_laboratorys_cells(
    pair: Pair,
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    jobs: int,
) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    finished(pair, made_world(pair, tmp_path), folder)
    monkeypatch.setenv("HYBRIDGE_HOME", str(tmp_path / "home"))
    key = tmp_path / "trusted.pub"
    key.write_text(small.key.public_hex)
    status = simulation.main(
        ["--json", "--bundle", str(pair.bundle.path), "--pictures", str(pair.pictures[0].parent),
         "--trust", str(key), "--lab", str(folder), "--links", "lte", "--budgets", "400",
         "--requests", "40", "--jobs", str(jobs)]
    )  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert status == 0
    targets = {each["name"]: each["value"] for each in found["targets"]}
    assert targets["answered"] == targets["in budget, of 40"] == 100
    (group,) = found["figures"]["groups"]
    assert {"local", "ours", "oracle", f"fixed:{CLOUD}"} <= group["scores"].keys()
    assert len(found["figures"]["compared"]) == 2
    assert found["figures"]["simulated_hours_per_s"] > 0

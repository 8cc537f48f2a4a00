from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from wan import board, namespaces
from wan.failures import Failure, Outcome, read_cycles, sabotage
from wan.laboratory import Calibration, Laboratory, Setting, copy_bundle
from wan.pairs import Pair
from wan.records import Cell
from wan.references import large_answers
from wan.workers import Worker, script

from hybridge.shared.errors import RemoteRefused, RemoteUnavailable

from ..bundles import Small, picture

may_not = namespaces.why_not() or board.why_not()
needs_laboratory = pytest.mark.skipif(bool(may_not), reason=may_not or "a laboratory is permitted")

AMPLE_MS = 5_000.0


@pytest.fixture(scope="module")
def pair(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(6):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
    return Pair("small", small.bundle, tuple(sorted(folder.iterdir())))


@pytest.fixture(scope="module")
def laboratory(
    small: Small, pair: Pair, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Laboratory]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRIDGE_HOME", str(small.root.parent))  # where the bundle's key lies
        setting = Setting(tmp_path_factory.mktemp("out"), share=1.0, settle_s=2.0)
        with Laboratory(pair, setting) as running:
            yield running
    assert not running.board.path.exists()
    assert not Path("/var/run/netns", running.namespaces.edge.name).exists()


@needs_laboratory
def test_a_cell_is_measured_through_real_processes_and_packets(
    laboratory: Laboratory, pair: Pair, tmp_path: Path
) -> None:
    wanted = large_answers(pair.bundle, pair.pictures, kept=tmp_path / "large.json")
    measured = laboratory.measure(Cell("small", "lte", AMPLE_MS, "ours", 12, 20.0, seed=1))
    assert [record.index for record in measured.records] == list(range(12))
    assert [record.error for record in measured.records] == [""] * 12
    asked_cloud = [record for record in measured.records if record.plan == "cloud:raw"]
    assert asked_cloud
    assert all(record.predicted == wanted[record.picture] for record in asked_cloud)
    assert all(record.round_trip_ms >= record.agent_ms for record in measured.records)
    up = measured.circumstances["link"]["ways"]["up"]
    assert up["delivered_bytes"] > sum(record.sent_bytes for record in measured.records)
    assert measured.circumstances["link"]["link"] == "lte"


@needs_laboratory
def test_a_policy_that_asks_no_cloud_sends_nothing(laboratory: Laboratory) -> None:
    measured = laboratory.measure(Cell("small", "lte", AMPLE_MS, "local", 4, 20.0))
    assert {record.plan for record in measured.records} == {"local"}
    assert sum(record.sent_bytes for record in measured.records) == 0


@needs_laboratory
def test_policies_of_a_cell_meet_the_same_requests(laboratory: Laboratory) -> None:
    def shown(policy: str) -> list[tuple[str, float]]:
        records = laboratory.measure(Cell("small", "3g", AMPLE_MS, policy, 6, 20.0)).records
        first_s = records[0].scheduled_s
        return [(each.picture, round(each.scheduled_s - first_s, 6)) for each in records]

    assert shown("local") == shown("cloud-raw")


@needs_laboratory
def test_a_policy_without_a_name_of_ours_is_refused(laboratory: Laboratory) -> None:
    with pytest.raises(RemoteRefused, match="no policy 'nobody'"):
        laboratory.measure(Cell("small", "lte", AMPLE_MS, "nobody", 1, 20.0))
    assert laboratory.edge.ask({"do": "reset"})["reachable"]


@needs_laboratory
def test_the_device_alone_is_calibrated(laboratory: Laboratory) -> None:
    found = laboratory.calibrate(requests=20)
    assert 0 < found.p50_ms <= found.p99_ms
    assert found.capacity_hz > 0
    assert found.cpu_share > 0


@needs_laboratory
@pytest.mark.parametrize("failure", Failure)
def test_a_failure_in_mid_request_loses_none(
    laboratory: Laboratory, tmp_path: Path, failure: Failure
) -> None:
    def go_on(count: int) -> Outcome:
        return sabotage(
            lambda: laboratory, failure, count=count, policy="cloud-raw", budget_ms=2_000.0,
            rate_hz=20.0, file=tmp_path / "failures.jsonl",
        )  # fmt: skip

    go_on(1)
    outcome = go_on(2)  # the first is taken from the file
    cycles = read_cycles(tmp_path / "failures.jsonl")
    assert [cycle.seed for cycle in cycles] == list(range(outcome.failures))
    assert outcome.in_mid_request == 2  # others may have met no request
    assert outcome.requests == 4 * outcome.failures
    assert outcome.followed >= 1
    assert (outcome.lost, outcome.shown_twice) == (0, 0)


def test_budgets_go_from_the_shortest_that_makes_sense_to_two_seconds() -> None:
    slow = Calibration(30.0, 40.0, 60.2, 33.3, 0.25)
    assert slow.rate_hz == 16.65
    assert slow.budgets_ms(3) == [91.0, 427.0, 2000.0]
    quick = Calibration(2.0, 3.0, 4.0, 300.0, 1.0)
    assert quick.budgets_ms(2) == [20.0, 2000.0]


def test_the_edge_gets_a_copy_that_no_machine_has_measured(small: Small, tmp_path: Path) -> None:
    (small.bundle.profiles).mkdir(exist_ok=True)
    (small.bundle.profiles / "other.json").write_text("{}")
    copy = copy_bundle(small.bundle, tmp_path / "bundles")
    assert not (copy / "profiles").exists()
    (copy / "profiles").mkdir()
    assert copy_bundle(small.bundle, tmp_path / "bundles") == copy
    assert (copy / "profiles").exists()  # its own is kept


def test_the_large_answers_are_asked_for_once(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "large.json"
    first = large_answers(pair.bundle, pair.pictures[:4], kept=kept)
    more = large_answers(pair.bundle, pair.pictures, kept=kept)
    monkeypatch.setattr("wan.references._ask", None)
    assert large_answers(pair.bundle, pair.pictures, kept=kept) == more
    assert first.items() <= more.items()


def test_a_worker_that_ends_says_why(tmp_path: Path) -> None:
    command = [*script("emulator"), "--no-such-option"]
    worker = Worker("emulator", command, log=tmp_path / "emulator.log")
    with pytest.raises(RemoteUnavailable, match=r"(?s)emulator has ended.*required"), worker:
        pass

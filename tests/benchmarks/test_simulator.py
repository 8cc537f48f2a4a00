from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wan.answers import answers_of
from wan.arrivals import Arrivals
from wan.boards import profiled
from wan.link_model import DirectionSpec, LinkSpec, Rate
from wan.links import find_link
from wan.records import Cell
from wan.simulated import Board
from wan.simulator import World, simulate

from hybridge.devices.models import stage_names
from hybridge.edge.cloud_times import CloudTimes
from hybridge.edge.lateness import Lateness
from hybridge.shared.bundle import open_bundle
from hybridge.shared.plan import PlanKind

from ..bundles import CLOUD, SPLIT, Small
from ..edge.test_layers import LAYERED, with_layers

CELL = Cell("small", "lte", 400.0, "ours", 60, 10.0)


@pytest.fixture(scope="module")
def world(small: Small, tmp_path_factory: pytest.TempPathFactory) -> World:
    manifest = small.bundle.manifest
    folder = tmp_path_factory.mktemp("answers")
    pictures = sorted((small.root.parent / "evaluation").glob("*.png"))
    answers = answers_of(small.bundle, pictures, cache=folder)
    work_ms = dict.fromkeys(stage_names(manifest), 1.0)
    board = Board(known={}, work_ms=work_ms, decode_ms=1.0, share=0.25)
    remote = [row.parsed() for row in manifest.table if row.parsed().kind is not PlanKind.LOCAL]
    return World(
        bundle=small.bundle,
        answers=answers,
        board=replace(board, known=profiled(board)),
        tails_ms={manifest.contract(plan).id: 5.0 for plan in remote},
    )


def test_answers_are_those_of_the_models_and_are_kept(small: Small, tmp_path: Path) -> None:
    pictures = sorted((small.root.parent / "evaluation").glob("*.png"))
    found = answers_of(small.bundle, pictures, cache=tmp_path)
    kept = next(tmp_path.iterdir()).stat().st_mtime_ns
    again = answers_of(small.bundle, pictures, cache=tmp_path)
    assert next(tmp_path.iterdir()).stat().st_mtime_ns == kept
    np.testing.assert_array_equal(found.classes, again.classes)
    assert found.plans == (str(SPLIT), str(CLOUD))
    assert found.agreement(str(CLOUD)) == 1.0
    assert (found.sizes[:, found.plans.index(str(CLOUD))] >= 16 * 16 * 3).all()


def test_a_board_knows_of_itself_what_its_quota_makes_of_its_work(world: World) -> None:
    board = replace(world.board, spread=0.0, hiccups=0.0, work_ms={"head": 5.0, "light": 1.0})
    known = profiled(board)
    assert known["head"].p50_ms == pytest.approx(20, abs=4)  # two periods, give or take a tick
    assert known["light"].cpu_ms == pytest.approx(1.0)


def test_ours_answers_all_in_time_and_mostly_by_the_cloud(world: World) -> None:
    measured = simulate(CELL, world, link=find_link("lte"))
    assert len(measured.records) == 60
    assert all(record.in_budget for record in measured.records)
    assert Counter(record.plan for record in measured.records)["local"] < 30


def test_a_budget_below_the_round_trip_is_kept_by_the_device(world: World) -> None:
    measured = simulate(replace(CELL, budget_ms=45.0), world, link=find_link("lte"))
    assert {record.plan for record in measured.records} == {"local"}


@pytest.mark.parametrize("link", ["lte", "lte-outages"])
def test_the_same_cell_is_the_same_again(world: World, link: str) -> None:
    cell = replace(CELL, link=link, requests=200)
    once, again = (simulate(cell, world, link=find_link(link)) for _ in range(2))
    assert once == again


def test_a_fixed_plan_and_local_meet_the_same_requests(world: World) -> None:
    cells = [replace(CELL, policy=policy) for policy in ("local", f"fixed:{CLOUD}")]
    local, fixed = (
        simulate(cell, world, link=find_link("lte"), arrivals=Arrivals.POISSON) for cell in cells
    )
    assert [r.picture for r in local.records] == [r.picture for r in fixed.records]
    assert [r.scheduled_s for r in local.records] == [r.scheduled_s for r in fixed.records]
    assert {r.plan for r in local.records} == {"local"}
    assert str(CLOUD) in {r.plan for r in fixed.records}


def test_an_outage_is_bridged_by_the_device(world: World) -> None:
    cell = replace(CELL, link="lte-outages", requests=200)
    records = simulate(cell, world, link=find_link("lte-outages")).records
    start_s = records[0].scheduled_s
    # The link fails 8 s after its beginning, and so 4 s after the first request, for 3 s.
    dark = [r for r in records if 4.5 < r.scheduled_s - start_s < 6.5]
    assert dark
    assert {r.plan for r in dark} == {"local"}
    assert all(r.answered for r in records)


THIN = LinkSpec(
    "thin",
    up=DirectionSpec(bottleneck=Rate(bps=40e3), delay_ms=20.0),
    down=DirectionSpec(bottleneck=Rate(bps=1e6), delay_ms=20.0),
)
"""A frame in layers of the small bundle takes some 200 ms, with what is around its chunks."""


@pytest.fixture(scope="module")
def in_layers(small: Small, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The device alone, or a frame in layers."""
    path = small.rewrite(tmp_path_factory.mktemp("layers"), with_layers)
    bundle = open_bundle(path, trust=small.trust)
    pictures = sorted((small.root.parent / "evaluation").glob("*.png"))
    answers = answers_of(bundle, pictures, cache=tmp_path_factory.mktemp("answers"))
    work_ms = dict.fromkeys(stage_names(bundle.manifest), 1.0)
    board = Board(known={}, work_ms=work_ms, decode_ms=1.0, share=1.0)
    return World(
        bundle=bundle,
        answers=answers,
        board=replace(board, known=profiled(board)),
        tails_ms={bundle.manifest.contract(LAYERED).id: 5.0},
    )


def test_every_layer_of_every_frame_has_an_answer(in_layers: World) -> None:
    ends, sizes = in_layers.answers.layer_ends[:, 0], in_layers.answers.sizes[:, 0]
    assert (np.diff(ends[:, :5]) > 0).all()
    assert (ends[:, 4] == sizes).all()
    assert not ends[:, 5:].any()
    classes = in_layers.answers.layer_classes[:, 0, 4]
    np.testing.assert_array_equal(classes, in_layers.answers.classes[:, 0])


def test_over_a_thin_link_what_has_come_is_answered(in_layers: World) -> None:
    cell = replace(CELL, link="thin", budget_ms=340.0, policy=f"fixed:{LAYERED}", rate_hz=1.0)
    records = simulate(cell, in_layers, link=THIN).records
    assert all(record.in_budget for record in records)
    parts = [record for record in records if 0 < record.layers < record.layers_in_all]
    assert len(parts) >= 10
    enough = simulate(replace(cell, budget_ms=1_000.0), in_layers, link=THIN).records
    assert {(record.layers, record.layers_in_all) for record in enough} == {(5, 5)}


def test_what_was_answered_from_a_part_is_that_parts_answer(in_layers: World) -> None:
    cell = replace(CELL, link="thin", budget_ms=340.0, policy=f"fixed:{LAYERED}", rate_hz=1.0)
    for record in simulate(cell, in_layers, link=THIN).records:
        if record.layers:
            at = in_layers.answers.pictures.index(record.picture)
            assert record.predicted == in_layers.answers.layer_classes[at, 0, record.layers - 1]


def test_the_agent_is_told_how_long_requests_and_answers_are_under_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_ms: list[float] = []
    out_ms: list[float] = []
    monkeypatch.setattr(Lateness, "arrived", lambda _, ms: in_ms.append(ms))
    monkeypatch.setattr(Lateness, "left", lambda _, ms: out_ms.append(ms))
    records = simulate(CELL, world, link=find_link("lte")).records
    ways = zip(records, in_ms, sorted(out_ms), strict=True)
    assert all(0.0 < each < 50.0 and 0.0 < out < 50.0 for _, each, out in ways)
    assert all(record.agent_ms < record.round_trip_ms for record in records)


@pytest.mark.parametrize(("rate_hz", "waits"), [(5.0, False), (50.0, True)])
def test_an_answer_says_how_long_others_would_wait_once_it_leaves(
    world: World, monkeypatch: pytest.MonkeyPatch, rate_hz: float, waits: bool
) -> None:
    """Its own time in the cloud is over then: who comes alone leaves nothing to wait for."""
    said_ms: list[float] = []
    learn = CloudTimes.learn_queue

    def learn_queue(times: CloudTimes, queue_ms: float, *, now_s: float) -> None:
        said_ms.append(queue_ms)
        learn(times, queue_ms, now_s=now_s)

    monkeypatch.setattr(CloudTimes, "learn_queue", learn_queue)
    slow = replace(world, tails_ms=dict.fromkeys(world.tails_ms, 40.0))
    cell = replace(CELL, policy=f"fixed:{CLOUD}", rate_hz=rate_hz)
    simulate(cell, slow, link=find_link("lte"))
    assert len(said_ms) > 10
    assert any(said_ms) == waits

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wan.arrivals import Arrivals, arrival_times_s, shown
from wan.failures import Cycle, Outcome
from wan.matrix import Matrix, groups, pooled, read_budgets_ms, worst_link
from wan.page import page
from wan.records import Cell, Measured, Record, read_records, write_records
from wan.replays import Costs

from hybridge.shared.errors import ConfigError

from .test_scoring import WANTED, lost, record

CELL = Cell("imagenet", "lte", 200.0, "ours", 4, 10.0)
PLANS = {"local": Costs(0.8, 0, 10), "cloud:png": Costs(1.0, 117_000, 30)}


def measured(policy: str, records: list[Record], *, link: str = "lte", seed: int = 0) -> Measured:
    return Measured(Cell("imagenet", link, 100.0, policy, len(records), 10.0, seed), records)


def test_an_answer_is_lost_or_shown_twice_by_its_final_ones_too() -> None:
    fine, followed = record(0), replace(record(1), promised=True, finals=1, fallback="cloud late")
    forgotten, doubled = replace(followed, finals=0), replace(followed, finals=2)
    unasked, late = replace(fine, finals=1), record(2, ms=101)
    cycles = [
        Cycle(0, 0.02, (fine, followed, late)),
        Cycle(1, 0.2, (forgotten, doubled, unasked, lost(3)), strays=1),
    ]
    outcome = Outcome.of(cycles)
    assert (outcome.failures, outcome.requests, outcome.followed) == (2, 7, 3)
    assert (outcome.in_mid_request, outcome.hit) == (1, 2)
    assert (outcome.lost, outcome.shown_twice, outcome.late) == (2, 3, 1)


def test_policies_of_a_cell_follow_one_another_on_the_same_stretch_of_a_link() -> None:
    matrix = Matrix("imagenet", ["lte", "3g"], [60, 200], ["ours", "local"], 300, 20.0)
    cells = matrix.cells()
    assert len(cells) == len({cell.name for cell in cells}) == 8
    assert [cell.policy for cell in cells[:2]] == ["ours", "local"]
    assert cells[0].offset_s == cells[1].offset_s == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"links": []},
        {"budgets_ms": [0.0]},
        {"budgets_ms": [float("nan")]},
        {"policies": ["nope"]},
        {"policies": ["fixed:nope"]},
        {"rate_hz": 0.0},
        {"rate_hz": float("inf")},
        {"requests": 0},
        {"seeds": 0},
    ],
    ids=str,
)
def test_a_matrix_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(Matrix("imagenet", ["lte"], [60], ["ours"], 300, 20.0), **wrong)


@pytest.mark.parametrize("text", ["", "abc", "100,", "100,-5", "nan", "inf"])
def test_budgets_that_are_none(text: str) -> None:
    assert read_budgets_ms("100,2e3") == [100.0, 2000.0]
    with pytest.raises(ConfigError, match="such as 100,400"):
        read_budgets_ms(text)


def test_ours_may_get_more_seeds_and_each_begins_elsewhere() -> None:
    matrix = Matrix("imagenet", ["lte"], [60], ["ours", "local"], 300, 20.0, ours_seeds=3)
    cells = [(cell.policy, cell.seed, cell.offset_s) for cell in matrix.cells()]
    assert cells == [("ours", 0, 0.0), ("local", 0, 0.0), ("ours", 1, 15.0), ("ours", 2, 30.0)]


def test_a_cell_reads_back_from_its_file(tmp_path: Path) -> None:
    cell = Cell("imagenet", "trace:a_b", 200.0, "fixed:split:c/int8/affine4", 2, 10.0)
    assert Measured.load(tmp_path, cell) is None
    kept = Measured(cell, (record(0), lost(1)), {"load_average": 0.5})
    kept.save(tmp_path)
    assert Measured.load(tmp_path, cell) == kept
    assert [file.suffix for file in tmp_path.iterdir()] == [".json"]


def test_a_cell_of_another_version_is_named(tmp_path: Path) -> None:
    (tmp_path / f"{CELL.name}.json").write_text('{"records": [{"unknown": 1}]}')
    with pytest.raises(ConfigError, match=r"hz_seed0_from0s\.json is no cell .* remove it"):
        Measured.load(tmp_path, CELL)


def test_records_read_back_from_their_file(tmp_path: Path) -> None:
    records = [record(0), lost(1)]
    write_records(tmp_path / "records.jsonl", records)
    assert read_records(tmp_path / "records.jsonl") == records


def test_a_group_compares_ours_with_each_and_with_the_oracle() -> None:
    count = 40
    found = groups(
        [
            measured("ours", [record(i, right=i % 4 != 1) for i in range(count)]),
            measured("local", [record(i, right=i % 2 == 0) for i in range(count)]),
            measured("fixed:cloud:png", [record(i, plan="cloud:png") for i in range(count)]),
        ],
        WANTED,
        plans=PLANS,
    )
    (group,) = found
    assert group.scores["oracle"].agreement == 1.0
    assert group.against["local"].value == 0.25
    assert group.gap_closed is not None
    assert group.gap_closed.value == 0.5


def test_without_the_replays_it_takes_there_is_no_oracle() -> None:
    cells = [measured("ours", [record(0)]), measured("local", [record(0)])]
    (group,) = groups(cells, WANTED, plans=PLANS)
    assert "oracle" not in group.scores
    assert group.gap_closed is None


def test_rivals_are_compared_on_the_seeds_they_have_in_common() -> None:
    cells = [
        measured("ours", [record(0)]),
        measured("ours", [record(0, right=False)], seed=1),
        measured("local", [record(0)]),
    ]
    (group,) = groups(cells, WANTED, plans=PLANS)
    assert group.scores["ours"].agreement == 0.5
    assert group.against["local"].value == 0.0


def test_requests_are_pooled_over_links_and_the_worst_is_named() -> None:
    cells = [
        measured("ours", [record(0), record(1)]),
        measured("ours", [record(0), record(1, ms=101)], link="3g"),
        measured("local", [record(0, ms=101)], link="3g"),
    ]
    assert len(pooled(cells, "ours")) == 4
    assert worst_link(cells, "ours") == ("3g", 0.5)


def test_the_page_shows_every_policy_and_escapes_what_it_is_told() -> None:
    cells = [measured("ours", [record(0)]), measured("local", [record(0, ms=500)])]
    html = page("a < b", groups(cells, WANTED, plans=PLANS), ["note & more"])
    assert "a &lt; b" in html
    assert "note &amp; more" in html
    assert html.count("<tr") == 3
    assert "0.0% / 0.00%, 500 ms" in html


@given(
    st.integers(0, 200), st.floats(0.1, 1000), st.integers(0, 99), st.sampled_from(list(Arrivals))
)
def test_arrivals_are_in_order_and_the_same_for_the_same_seed(
    count: int, rate_hz: float, seed: int, kind: Arrivals
) -> None:
    times_s = arrival_times_s(count, rate_hz=rate_hz, seed=seed, kind=kind)
    assert len(times_s) == count
    assert times_s == sorted(times_s)
    assert all(time_s > 0 for time_s in times_s)
    assert times_s == arrival_times_s(count, rate_hz=rate_hz, seed=seed, kind=kind)


@pytest.mark.parametrize("kind", Arrivals)
def test_arrivals_come_at_their_rate(kind: Arrivals) -> None:
    times_s = arrival_times_s(20_000, rate_hz=50, seed=3, kind=kind)
    assert times_s[-1] == pytest.approx(400, rel=0.05)


@given(st.integers(0, 100), st.integers(1, 30), st.integers(0, 9))
def test_every_picture_is_shown_before_one_is_shown_again(
    count: int, pictures: int, seed: int
) -> None:
    order = shown(count, pictures=pictures, seed=seed)
    assert len(order) == count
    for start in range(0, count, pictures):
        turn = order[start : start + pictures]
        assert len(set(turn)) == len(turn)

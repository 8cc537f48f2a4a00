from dataclasses import replace

from wan.findings import quick_targets, targets
from wan.matrix import groups
from wan.records import Cell, Measured, Record
from wan.replays import Costs

from .test_scoring import WANTED, answered, record

PLANS = {"local": Costs(0.8, 0, 10), "cloud:png": Costs(1.0, 117_000, 30)}


def cell_of(link: str, policy: str, records: list[Record]) -> Measured:
    return Measured(Cell("imagenet", link, 100.0, policy, len(records), 10.0), records)


def verdicts(cells: list[Measured]) -> dict[str, tuple[float, bool]]:
    found = targets(cells, groups(cells, WANTED, plans=PLANS))
    return {each.name: (each.value, each.holds) for each in found}


def over(link: str, *, ours: int, cloud: int) -> list[Measured]:
    """40 requests: the device is right in 20, the oracle in all, ours and a rival in so many."""
    replay = [record(index, plan="cloud:png") for index in range(40)]
    right = {"local": 20, "ours": ours, "cloud-jpeg": cloud}
    cells = [
        cell_of(link, policy, answered([at < n for at in range(40)])) for policy, n in right.items()
    ]
    return [*cells, cell_of(link, "fixed:cloud:png", replay)]


def test_the_worst_cell_is_the_gaps_value_and_the_rest_is_counted() -> None:
    found = verdicts([*over("lte", ours=40, cloud=30), *over("3g", ours=30, cloud=30)])
    (name,) = [name for name in found if name.startswith("way from local")]
    assert "least of 2 cells" in name
    assert "1 of which hold" in name
    assert found[name] == (50.0, False)


def test_a_rival_a_little_better_counts_raw_but_not_beyond_its_interval() -> None:
    found = verdicts(over("lte", ours=39, cloud=40))
    # The replay of the best plan is a rival too; it agrees in 40.
    assert found["cells in which a rival agrees more often at all"] == (1, False)
    assert found["cells in which a rival agrees more often, beyond its interval"] == (0, True)
    assert found["answered"] == (100.0, True)


def test_ours_told_otherwise_is_no_rival() -> None:
    better = cell_of("lte", "ours-latency", answered([True] * 40))
    found = verdicts([*over("lte", ours=39, cloud=30)[:-1], better])
    assert found["cells in which a rival agrees more often at all"] == (0, True)


def test_to_be_quick_is_held_against_the_quickest_cloud_that_agrees_enough() -> None:
    def cell(policy: str, *, ms: float, right: int) -> Measured:
        answers = answered([at < right for at in range(40)])
        return cell_of("lte", policy, [replace(each, round_trip_ms=ms) for each in answers])

    cells = [
        cell("ours-latency", ms=30, right=40),
        cell("cloud-jpeg", ms=20, right=30),
        cell("cloud-raw", ms=60, right=40),
    ]
    quicker, agreement = quick_targets(groups(cells, WANTED, plans=PLANS))
    assert (quicker.value, quicker.holds) == (50.0, True)
    assert (agreement.value, agreement.holds) == (100.0, True)
    late = [cell("ours-latency", ms=90, right=39), *cells[1:]]
    quicker, agreement = quick_targets(groups(late, WANTED, plans=PLANS))
    assert (quicker.value, quicker.holds) == (-50.0, False)
    assert (agreement.value, agreement.holds) == (97.5, False)
    assert quick_targets(groups(cells[1:], WANTED, plans=PLANS)) == []

import pytest

from hybridge.cloud.batching import form, room
from hybridge.cloud.cost import Cost
from hybridge.cloud.job import Job, StageKey

EVEN = Cost(fixed_ms=0.0, per_item_ms=10.0, crowd_items=2)
GAINING = Cost(fixed_ms=8.0, per_item_ms=1.0, batch_items=8, crowd_items=2)


@pytest.mark.parametrize(
    ("waiting", "free_s", "most"),
    [
        (1, [1.0, 1.020], 1),  # no crowd
        (2, [1.0, 1.020], 2),
        (9, [1.0, 1.020], 2),
        (2, [1.0, 1.004], 1),  # the other instance would have nothing to do
        (3, [1.0, 1.004], 1),
        (4, [1.0, 1.004], 2),
        (2, [1.0, 1.006], 2),  # too late to share
        (9, [1.0], 1),  # one instance alone
    ],
)
def test_a_crowd_is_more_than_instances_take(waiting: int, free_s: list[float], most: int) -> None:
    assert room(waiting, EVEN, at_s=1.0, free_s=free_s) == most


def test_where_batches_gain_they_are_as_large_as_they_are_worth() -> None:
    assert room(2, GAINING, at_s=1.0, free_s=[1.0, 1.0]) == 8


def jobs(*deadlines_s: float) -> list[Job]:
    return [
        Job(id=at, stage=StageKey("m", "1"), items=1, arrived_s=0.0, deadline_s=deadline_s)
        for at, deadline_s in enumerate(deadlines_s)
    ]


@pytest.mark.parametrize(
    ("deadlines_s", "ran", "hopeless"),
    [
        ([0.081, 0.5], 2, 0),
        ([0.079, 0.5], 1, 0),  # in company it would be late, were the run four times as long
        ([0.5, 0.079], 1, 0),
        ([0.009, 0.015, 0.5], 1, 1),
    ],
)
def test_who_is_in_a_hurry_goes_without_company(
    deadlines_s: list[float], ran: int, hopeless: int
) -> None:
    group = form(jobs(*deadlines_s), EVEN, at_s=0.0, most=2)
    assert (len(group.jobs), len(group.hopeless)) == (ran, hopeless)


@pytest.mark.parametrize(("deadline_s", "ran"), [(0.0101, 2), (0.0099, 1)])
def test_company_that_pays_is_taken_up_to_the_deadline(deadline_s: float, ran: int) -> None:
    assert len(form(jobs(deadline_s, 0.5), GAINING, at_s=0.0, most=8).jobs) == ran

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wan.processor import Lane, Processor, Quota
from wan.virtual import run_virtually

from hybridge.edge.duration import NO_TIME, Duration
from hybridge.shared.deadline import Deadline


def ends_ms(jobs: Sequence[tuple[float, float, float]], *, share: float = 1.0) -> list[float]:
    """When jobs (begun at ms, ms of work, weight) end, in ms."""

    async def work() -> list[float]:
        loop, processor = asyncio.get_running_loop(), Processor(share=share)
        start_s = loop.time()

        async def run(begin_ms: float, ms: float, weight: float) -> float:
            await asyncio.sleep(begin_ms / 1e3)
            await processor.run(ms, weight)
            return (loop.time() - start_s) * 1e3

        return list(await asyncio.gather(*(run(*job) for job in jobs)))

    return run_virtually(work())


def test_a_job_alone_takes_its_time() -> None:
    assert ends_ms([(0, 30, 1)]) == pytest.approx([30])


def test_two_jobs_share_by_weight() -> None:
    # Three quarters and one quarter until 20 ms, when the first is done; then all for the second.
    assert ends_ms([(0, 15, 3), (0, 15, 1)]) == pytest.approx([20, 30])


def test_who_comes_later_takes_a_share_from_then_on() -> None:
    # 10 ms alone, then halves: 10 ms of work are left to each for 20 ms.
    assert ends_ms([(0, 20, 1), (10, 10, 1)]) == pytest.approx([30, 30])


def test_a_quota_is_used_up_at_once_and_overdrawn_until_the_clock_ticks() -> None:
    # 2.5 ms in each 10, looked at every 4: until 4, from 10 with 1 left until 12, then with 1.5.
    assert ends_ms([(0, 6.25, 1)], share=0.25) == pytest.approx([20.25], abs=1e-6)
    assert ends_ms([(0, 2, 1)], share=0.25) == pytest.approx([2], abs=1e-6)


def test_what_is_left_of_a_quota_is_the_next_ones() -> None:
    assert ends_ms([(0, 2, 1), (5, 1, 1)], share=0.25) == pytest.approx([2, 6], abs=1e-6)


def test_what_comes_when_a_quota_is_used_up_waits() -> None:
    assert ends_ms([(0, 3, 1), (5, 1, 1)], share=0.25) == pytest.approx([3, 11], abs=1e-6)


def test_what_was_overdrawn_may_take_whole_periods_to_pay() -> None:
    # 0.5 ms in each 10: 4 ms are the quotas of eight periods.
    assert ends_ms([(0, 5, 1)], share=0.05) == pytest.approx([81], abs=1e-6)


@given(share=st.floats(0.02, 0.9), at_s=st.floats(0, 1))
def test_in_the_long_run_a_quota_is_its_share(share: float, at_s: float) -> None:
    ran_s = Quota(share).use(at_s, at_s + 10.0)
    assert ran_s == pytest.approx(10.0 * share, abs=0.015)


@given(
    share=st.floats(0.02, 1),
    work_s=st.floats(1e-5, 0.5),
    at_s=st.floats(0, 1),
    steps=st.lists(st.floats(0, 1), max_size=5),
)
def test_a_quota_does_what_it_foretells(
    share: float, work_s: float, at_s: float, steps: list[float]
) -> None:
    end_s = Quota(share).when(work_s, now_s=at_s)
    assert end_s - at_s >= work_s - 1e-9
    quota, done_s, now_s = Quota(share), 0.0, at_s
    for step in [*sorted(steps), 1.0]:
        next_s = max(now_s, at_s + step * (end_s - at_s))
        done_s, now_s = done_s + quota.use(now_s, next_s), next_s
    assert done_s == pytest.approx(work_s, abs=1e-8)


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 20), st.floats(1, 1000)), min_size=1))
def test_no_work_is_lost_and_none_is_done_twice(jobs: list[tuple[float, float, float]]) -> None:
    ends = ends_ms(jobs)
    begins = [begin for begin, _, _ in jobs]
    assert all(end >= begin + ms - 1e-5 for end, (begin, ms, _) in zip(ends, jobs, strict=True))
    assert max(ends) <= max(begins) + sum(ms for _, ms, _ in jobs) + 1e-5


def order_in_lane(deadlines_s: Sequence[float], *, given_up: int | None = None) -> list[int]:
    async def work() -> list[int]:
        loop = asyncio.get_running_loop()
        lane, done = Lane(Processor(), threads=1, weight=1), []

        async def run(number: int, deadline_s: float) -> None:
            await lane.run([10], Deadline.after_ms(1e3 * deadline_s, now_s=loop.time()), NO_TIME)
            done.append(number)

        tasks = [asyncio.ensure_future(run(*each)) for each in enumerate(deadlines_s)]
        await asyncio.sleep(0.005)
        if given_up is not None:
            tasks[given_up].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return done

    return run_virtually(work())


def test_a_lane_takes_the_earliest_deadline_next() -> None:
    assert order_in_lane([9, 3, 1, 2]) == [0, 2, 3, 1]


def test_what_is_given_up_while_it_waits_is_not_run() -> None:
    assert order_in_lane([9, 3, 1, 2], given_up=2) == [0, 3, 1]


def test_a_lane_goes_on_when_one_is_given_up_in_the_instant_of_its_turn() -> None:
    async def work() -> bool:
        loop = asyncio.get_running_loop()
        lane, deadline = (
            Lane(Processor(), threads=1, weight=1),
            Deadline.after_ms(1_000, now_s=loop.time()),
        )
        first = asyncio.ensure_future(lane.run([10], deadline, NO_TIME))
        second = asyncio.ensure_future(lane.run([10], deadline, NO_TIME))
        await asyncio.sleep(0)
        first.add_done_callback(lambda _: second.cancel())
        await asyncio.wait([first, second])
        await lane.run([10], deadline, NO_TIME)
        return second.cancelled()

    assert run_virtually(work())


def test_a_lane_says_how_long_one_would_wait() -> None:
    async def work() -> list[float]:
        loop = asyncio.get_running_loop()
        lane, start_s = Lane(Processor(), threads=1, weight=1), loop.time()
        deadlines = [Deadline.after_ms(1e3 * s, now_s=start_s) for s in (1, 2, 4)]
        waits = [lane.wait(deadlines[0]).mean_ms]
        tasks = [
            asyncio.ensure_future(lane.run([10], deadline, Duration(10))) for deadline in deadlines
        ]
        await asyncio.sleep(0.004)
        waits += [lane.wait(Deadline.after_ms(1e3 * s, now_s=start_s)).mean_ms for s in (1.5, 3, 5)]
        await asyncio.gather(*tasks)
        return waits

    assert run_virtually(work()) == pytest.approx([0, 6, 16, 26])

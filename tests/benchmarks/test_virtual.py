import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wan.virtual import run_virtually


@given(st.lists(st.integers(0, 1_000_000), min_size=1, max_size=20))
def test_sleepers_wake_in_order_and_at_their_times(delays_ms: list[int]) -> None:
    async def work() -> list[tuple[float, int]]:
        loop, woken = asyncio.get_running_loop(), []
        start_s = loop.time()

        async def sleep(ms: int) -> None:
            await asyncio.sleep(ms / 1e3)
            woken.append((loop.time() - start_s, ms))

        await asyncio.gather(*map(sleep, delays_ms))
        return woken

    woken = run_virtually(work())
    assert [ms for _, ms in woken] == sorted(delays_ms)
    assert [at_s for at_s, _ in woken] == pytest.approx([ms / 1e3 for _, ms in woken], abs=1e-8)


def test_a_timeout_ends_what_would_take_a_year() -> None:
    async def work() -> float:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3_600):
                await asyncio.sleep(365 * 86_400)
        return loop.time() - start_s

    assert run_virtually(work()) == pytest.approx(3_600)


def test_what_nobody_will_ever_answer_is_an_error_and_no_hang() -> None:
    async def work() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="nothing will happen"):
        run_virtually(work())


def test_tasks_that_are_left_over_are_cancelled() -> None:
    ended = []

    async def linger() -> None:
        try:
            await asyncio.sleep(1e6)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def work() -> "asyncio.Task[None]":
        task = asyncio.ensure_future(linger())
        await asyncio.sleep(1)
        return task

    assert run_virtually(work()).cancelled()
    assert ended == ["cancelled"]

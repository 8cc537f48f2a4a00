import asyncio
from collections.abc import AsyncIterator

import pytest

from hybridge.cloud.stream import UNDER_WAY, in_order


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def test_answers_keep_the_order_of_requests() -> None:
    done = [asyncio.Event() for _ in range(5)]

    async def answer(number: int) -> int:
        if number < 4:  # each waits for the one after it
            await done[number + 1].wait()
        done[number].set()
        return number * 10

    stream = in_order(numbers(5), answer, until=asyncio.Event())
    assert [each async for each in stream] == [0, 10, 20, 30, 40]


async def test_only_so_many_are_under_way() -> None:
    allowed, started, full = asyncio.Event(), [], asyncio.Event()

    async def answer(number: int) -> int:
        started.append(number)
        if len(started) == UNDER_WAY:
            full.set()
        await allowed.wait()
        return number

    async def collect() -> list[int]:
        return [each async for each in in_order(numbers(100), answer, until=asyncio.Event())]

    collecting = asyncio.ensure_future(collect())
    await full.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(started) == UNDER_WAY
    allowed.set()
    assert await collecting == list(range(100))


async def test_draining_answers_what_came_and_ends() -> None:
    until, reads = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncIterator[int]:
        yield 1
        yield 2
        reads.set()
        await asyncio.Event().wait()

    async def answer(number: int) -> int:
        await until.wait()
        return number

    async def collect() -> list[int]:
        return [each async for each in in_order(endless(), answer, until=until)]

    collecting = asyncio.ensure_future(collect())
    await reads.wait()
    until.set()
    assert await asyncio.wait_for(collecting, 30) == [1, 2]


async def test_who_leaves_takes_its_requests_along() -> None:
    cancelled, started = asyncio.Event(), asyncio.Event()

    async def answer(number: int) -> int:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return number

    stream = in_order(numbers(1), answer, until=asyncio.Event())
    following = asyncio.ensure_future(anext(stream))
    await started.wait()
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    await asyncio.wait_for(cancelled.wait(), 30)


async def test_a_broken_stream_is_told() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ConnectionError("reset")

    async def answer(number: int) -> int:
        return number

    answers: list[int] = []

    async def collect() -> None:
        async for each in in_order(broken(), answer, until=asyncio.Event()):
            answers.append(each)

    with pytest.raises(ConnectionError, match="reset"):
        await collect()
    assert answers == [1]

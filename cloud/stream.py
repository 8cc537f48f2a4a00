"""Many requests on one stream: computed side by side, answered in the order in which they came."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

Request = TypeVar("Request")
Response = TypeVar("Response")

UNDER_WAY = 32
"""Requests of one stream that may be unanswered; no more are read until the first is answered."""


async def in_order(
    requests: AsyncIterator[Request],
    answer: Callable[[Request], Awaitable[Response]],
    *,
    until: asyncio.Event,
) -> AsyncIterator[Response]:
    """The answers to a stream of requests, to its end.

    At `until` no more are read, and those that came are answered. `answer` must not raise.
    """
    answers: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue()
    room = asyncio.Semaphore(UNDER_WAY)
    under_way: set[asyncio.Task[Response]] = set()

    async def read() -> None:
        while True:
            await room.acquire()  # before a request is read: what was read is answered
            try:
                request = await anext(requests)
            except StopAsyncIteration:
                return
            task = asyncio.ensure_future(answer(request))
            under_way.add(task)
            answers.put_nowait(task)

    async def read_until() -> None:
        reading, stopping = asyncio.ensure_future(read()), asyncio.ensure_future(until.wait())
        try:
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        finally:
            reading.cancel()
            stopping.cancel()
            answers.put_nowait(None)

    reader = asyncio.ensure_future(read_until())
    try:
        while (task := await answers.get()) is not None:
            yield await task
            under_way.discard(task)
            room.release()
        await reader
    finally:
        reader.cancel()
        for task in under_way:
            task.cancel()

"""Messages on their way: the first may take long, the others have a while."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from hybridge.shared.errors import Overloaded
from hybridge.shared.receiving import Receiving


async def never() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


async def at_once(*messages: bytes) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


async def test_beyond_the_places_there_is_a_while_for_each() -> None:
    refused = list[Overloaded]()
    receiving = Receiving(places=1, patience_s=0.001, on_refusal=refused.append)
    slow = asyncio.ensure_future(receiving.next(never()))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=r"no whole message came within 0\.001 s, and 1 others"):
        await receiving.next(never())
    assert len(refused) == 1
    assert not slow.done()
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    assert receiving.begin("its place")
    assert not receiving.begin("another")
    receiving.end("another")
    receiving.end("its place")
    assert receiving.begin("another")


async def test_what_comes_at_once_is_received_either_way() -> None:
    for places in (0, 1):
        receiving, messages = Receiving(places=places, patience_s=60.0), at_once(b"1", b"2")
        assert [await receiving.next(messages), await receiving.next(messages)] == [b"1", b"2"]
        with pytest.raises(StopAsyncIteration):
            await receiving.next(messages)
        assert receiving.begin("a place") == (places == 1)

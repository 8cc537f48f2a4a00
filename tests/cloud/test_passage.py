import asyncio

from hybridge.cloud.passage import Passages


async def test_nobody_inside_nobody_awaited() -> None:
    await Passages().cleared("tiny")


async def test_waits_for_those_inside_and_for_no_others() -> None:
    passages = Passages()
    early, other = passages.through("tiny"), passages.through("other")
    with other:
        with early:
            clearing = asyncio.ensure_future(passages.cleared("tiny"))
            await asyncio.sleep(0)
            late = passages.through("tiny")
            late.__enter__()
            await asyncio.sleep(0)
            assert not clearing.done()
        await clearing
        late.__exit__(None, None, None)
        await passages.cleared("tiny")


async def test_all_of_a_crowd_have_to_come_out() -> None:
    passages = Passages()
    first, second = passages.through("tiny"), passages.through("tiny")
    with first:
        with second:
            clearing = asyncio.ensure_future(passages.cleared("tiny"))
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not clearing.done()
    await clearing

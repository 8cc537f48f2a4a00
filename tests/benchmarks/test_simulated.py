import asyncio

import pytest
from wan.link_model import Direction, DirectionSpec, OutageKind, Outages, Rate
from wan.simulated import Pipe
from wan.virtual import run_virtually

_START_S = 1_000.0
_QUEUE_BYTES = 1_000_000


def direction(
    *, bps: float = 8e6, delay_ms: float = 0.0, outages: Outages | None = None
) -> Direction:
    spec = DirectionSpec(
        bottleneck=Rate(bps), delay_ms=delay_ms, queue_bytes=_QUEUE_BYTES, outages=outages
    )
    return Direction(spec, seed=1, start_s=_START_S)


def test_a_message_arrives_when_its_bytes_and_their_headers_have_passed() -> None:
    async def work() -> float:
        return await Pipe(direction(delay_ms=20), again_s=0.1).send(1_448 + 100)

    # 1 byte a microsecond: 1,500 of the full segment, 152 of the other, and the delay.
    assert run_virtually(work()) - _START_S == pytest.approx(0.020 + 0.001652)


def test_messages_arrive_in_the_order_in_which_they_were_sent() -> None:
    async def work() -> list[float]:
        pipe = Pipe(direction(delay_ms=20), again_s=0.1)
        return list(await asyncio.gather(*(pipe.send(size) for size in (200_000, 10, 50_000))))

    arrived_s = run_virtually(work())
    assert arrived_s[1] < arrived_s[0]  # chunks of several messages take turns
    assert arrived_s[2] > arrived_s[1]


def test_no_more_than_a_window_waits_before_the_bottleneck() -> None:
    async def work() -> int:
        way, most = direction(), 0
        pipe, loop = Pipe(way, again_s=0.1), asyncio.get_running_loop()
        sending = asyncio.ensure_future(pipe.send(500_000))
        while not sending.done():
            most = max(most, way.waiting_bytes(loop.time()))
            await asyncio.sleep(0.001)
        return most

    most = run_virtually(work())
    assert 64_000 < most < 64_000 + 16_384 * 1_500 / 1_448 + 1_500


def test_what_is_given_up_before_it_entered_never_does() -> None:
    async def work() -> int:
        way = direction()
        sending = asyncio.ensure_future(Pipe(way, again_s=0.1).send(500_000))
        await asyncio.sleep(0.010)
        sending.cancel()
        await asyncio.sleep(10)
        return way.counts.delivered_bytes

    assert run_virtually(work()) < 100_000


def test_what_an_outage_takes_comes_after_it() -> None:
    async def work() -> float:
        outages = Outages(((0.0, 2.0),), period_s=20.0, kind=OutageKind.DROP)
        return await Pipe(direction(outages=outages), again_s=0.3).send(100)

    assert 2.0 < run_virtually(work()) - _START_S < 2.31

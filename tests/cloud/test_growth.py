"""Memory that grows steadily is told, with what ran; what comes, goes or settles is not."""

import asyncio
import dataclasses
import logging
import mmap
from collections.abc import Callable

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.cloud import growth
from hybridge.cloud.backend import Backend, Result
from hybridge.cloud.config import CloudConfig
from hybridge.cloud.growth import GrowthWatch, Sight, keep_looking
from hybridge.shared.security import Address
from hybridge.shared.side import Tensors
from hybridge.shared.tensor import Array

from .bundles import random_pixels
from .conftest import run_cloud
from .test_bad_input import inference_of, whole_stage
from .test_metrics import scrape
from .test_service import request_of

MIB, GIB = 1 << 20, 1 << 30
MINUTES = 7
"""Six windows of growth are seen between the ends of seven."""


def watched(size_at: Callable[[int], int], *, minutes: int, held: int = -1) -> GrowthWatch:
    """Looked at every 5 s; another model is loaded at the minute `held`."""
    watch = GrowthWatch()
    for second in range(0, minutes * 60 + 1, 5):
        runs = {"a/1": second * 10, "b/1": 7}
        sight = Sight(resident_bytes=size_at(second), runs=runs, holding=0 <= held * 60 <= second)
        watch.look(sight, now_s=1000.0 + second)
    return watch


def leaking(second: int) -> int:
    """200 KiB a second under what requests take: a lot in every other minute's middle."""
    return GIB + second * 200 * 1024 + (300 * MIB if 20 <= second % 120 < 100 else 0)


def test_a_leak_is_told_with_what_ran() -> None:
    assert watched(leaking, minutes=MINUTES - 1).growth is None
    found = watched(leaking, minutes=MINUTES).growth
    assert found is not None
    assert found.grown_bytes == pytest.approx(360 * 200 * 1024, rel=0.1)
    assert found.runs == {"a/1": pytest.approx(3600, rel=0.1)}  # b did not run
    assert "grows steadily, by 7" in str(found)
    assert "meanwhile ran a/1 3,6" in str(found)


@pytest.mark.parametrize(
    "size_at",
    [
        lambda second: GIB,
        lambda second: GIB + second * 50 * 1024,  # too little
        lambda second: 3 * GIB + second * 150 * 1024,  # too little of so much
        lambda second: GIB + min(second, 290) * MIB,  # has come to its end
        lambda second: GIB + int(500 * MIB * (1 - 0.99**second)),  # comes to it
        lambda second: GIB + second * MIB - (150 * MIB if second >= 200 else 0),  # went, once
    ],
)
def test_what_settles_is_no_leak(size_at: Callable[[int], int]) -> None:
    assert watched(size_at, minutes=MINUTES).growth is None


def test_what_is_loaded_takes_memory() -> None:
    assert watched(leaking, minutes=MINUTES, held=4).growth is None
    assert watched(leaking, minutes=4 + MINUTES, held=4).growth is not None


@given(st.lists(st.integers(0, 4 * GIB), min_size=2, max_size=40))
def test_only_growth_in_every_window_is_told(sizes: list[int]) -> None:
    watch, until = GrowthWatch(), list[int]()
    for at, size in enumerate(sizes):
        watch.look(Sight(resident_bytes=size, runs={}), now_s=60.0 * at)
        until.append(size)
        found, last = watch.growth, until[-8:-1]
        if found is not None:
            assert len(last) == 7
            assert last == sorted(set(last))
            assert found.grown_bytes == last[-1] - last[0] >= 32 * MIB


class Leaking(Backend):
    """Keeps 32 megabytes for ever in every run, of pages that nobody had and gave back before."""

    device = "cpu"

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self._kept: list[mmap.mmap] = []

    def run(self, batch: Array, sides: Tensors) -> Result:
        self._kept.append(mmap.mmap(-1, 32 * MIB))
        self._kept[-1].write(b"1" * 32 * MIB)
        return self._inner.run(batch, sides)


async def test_a_model_that_leaks_is_logged_and_shown(
    config: CloudConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen = dataclasses.replace(config, metrics=Address("127.0.0.1", 0))
    async with run_cloud(seen) as cloud, aiohttp.ClientSession() as session:
        inference, now_s = inference_of(cloud), 1e6
        await inference.loader.finished()  # tails come in the background
        assert cloud.server._looking is not None
        cloud.server._looking.cancel()  # we look ourselves
        stage = whole_stage(cloud)
        assert stage._backend is not None
        stage._backend = Leaking(stage._backend)
        watch = inference.statistics.growth
        for _ in range(MINUTES + 1):
            for _ in range(2):
                await cloud.stub.ModelInfer(request_of("pixels", random_pixels(0)), timeout=60)
            watch.look(inference.sight(), now_s=(now_s := now_s + 61.0))
        figures = await scrape(cloud, session)
        assert figures["hybridge_resident_growth_bytes{}"] > 60 * MIB
        told = asyncio.Event()
        monkeypatch.setattr(growth, "_LOOK_S", 0.0)

        def see() -> Sight:
            told.set()
            return inference.sight()

        with caplog.at_level(logging.WARNING):
            looking = asyncio.ensure_future(keep_looking(watch, see, clock=lambda: now_s))
            await asyncio.wait_for(told.wait(), 60)
            await asyncio.sleep(0)
            looking.cancel()
        assert caplog.text.count("resident memory grows steadily, by") == 1
        assert "meanwhile ran tiny/1 12 times" in caplog.text

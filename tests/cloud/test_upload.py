"""Frames in layers up a stream: answered from what came, whatever comes, holding no more than it.

What ends the wait is an event here and never an instant, but for one test that has none.
"""

import asyncio
import itertools
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridge.cloud.upload import Upload, assembled
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared import oip
from hybridge.shared.answer import Probabilities
from hybridge.shared.arrival import CHUNK_BYTES
from hybridge.shared.came import Came
from hybridge.shared.errors import (
    DeadlineUnmet,
    FrameError,
    HybridgeError,
    RequestError,
)
from hybridge.shared.frame import codec_of, read_layers_header

from .bundles import random_pixels
from .conftest import Cloud
from .layered import CODEC, LayeredModel, chunk, chunks

MODEL = LayeredModel()
LAYERS = MODEL.layers(MODEL.head(random_pixels(3)))
FRAME = b"".join(LAYERS)
ENDS = list(itertools.accumulate(map(len, LAYERS)))
HEADER_BYTES = read_layers_header(FRAME).header_bytes
LONG_MS = 60_000.0


@pytest.fixture
def model() -> LayeredModel:
    return MODEL


@dataclass
class Wait:
    """In place of the deadline: the wait for more of a frame ends when a test says so."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    came: "asyncio.Queue[int]" = field(default_factory=asyncio.Queue)

    async def for_bytes(self, count: int) -> None:
        while await asyncio.wait_for(self.came.get(), 60) < count:
            pass


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Wait:
    made, gathered, take = Wait(), Upload.gathered, Upload.take

    async def until_told(
        upload: Upload, *, least: int, wait_ms: Callable[[], float]
    ) -> tuple[bytes, ...]:
        assert 0.0 < wait_ms() < LONG_MS
        made.came.put_nowait(upload.came_bytes)
        return await gathered(
            upload, least=least, wait_ms=lambda: 0.0 if made.over.is_set() else 1.0
        )

    async def and_tell(upload: Upload, chunk: bytes, *, offset: int) -> None:
        await take(upload, chunk, offset=offset)
        made.came.put_nowait(upload.came_bytes)

    monkeypatch.setattr(Upload, "gathered", until_told)
    monkeypatch.setattr(Upload, "take", and_tell)
    return made


@dataclass
class Stream:
    """A stream under way: what is put goes up, answers are read one by one."""

    cloud: Cloud
    up: "asyncio.Queue[pb.ModelInferRequest | None]" = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        self._answers = aiter(self.cloud.stub.ModelStreamInfer(self._sent(), timeout=60))

    async def _sent(self) -> AsyncIterator[pb.ModelInferRequest]:
        while (request := await self.up.get()) is not None:
            yield request

    def send(self, *requests: pb.ModelInferRequest | None) -> None:
        for request in requests:
            self.up.put_nowait(request)

    async def answer(self) -> pb.ModelStreamInferResponse:
        return await anext(self._answers)


def told(response: pb.ModelStreamInferResponse) -> tuple[Probabilities, Came]:
    """What was answered, and from what."""
    assert not response.error_message, response.error_message
    answer = response.infer_response
    came = Came.of(oip.get_parameters(answer.parameters))
    assert came is not None
    return oip.output_array(answer, oip.PROBABILITIES).astype(np.float32), came


def expected(count: int) -> Probabilities:
    return MODEL.tail(MODEL.decoded(LAYERS, count))


def budget(**more: oip.Value) -> dict[str, oip.Value]:
    return {oip.LATENCY_BUDGET_MS: LONG_MS, **more}


async def test_all_of_it_is_not_waited_for_any_longer(cloud: Cloud) -> None:
    stream = Stream(cloud)
    stream.send(*chunks(LAYERS, **budget(codec=CODEC)))
    found, came = told(await stream.answer())
    np.testing.assert_allclose(found, expected(5), rtol=1e-4)
    assert came == Came(5, 5, len(FRAME), len(FRAME))
    stream.send(None)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
async def test_answered_from_the_layers_that_came(cloud: Cloud, wait: Wait, count: int) -> None:
    stream = Stream(cloud)
    begun = LAYERS[count][:-1]
    stream.send(*chunks([*LAYERS[:count], begun], **budget()))
    await wait.for_bytes(ENDS[count - 1] + len(begun))
    wait.over.set()
    found, came = told(await stream.answer())
    np.testing.assert_allclose(found, expected(count), rtol=1e-4)
    assert came == Came(count, 5, ENDS[count - 1] + len(begun), len(FRAME))
    stream.send(*list(chunks([FRAME[: came.came_bytes], FRAME[came.came_bytes :]]))[1:], None)
    with pytest.raises(StopAsyncIteration):  # what comes late is no request
        await stream.answer()


async def test_not_even_the_first_layer(cloud: Cloud, wait: Wait) -> None:
    stream = Stream(cloud)
    stream.send(chunk(FRAME[: ENDS[0] - 1], 0, **budget()))
    await wait.for_bytes(ENDS[0] - 1)
    wait.over.set()
    response = await stream.answer()
    assert "0 of at least 1 layers were there" in response.error_message
    told = oip.get_parameters(response.infer_response.parameters)
    assert told[oip.STATUS] == grpc.StatusCode.DEADLINE_EXCEEDED.name
    stream.send(None)


async def test_fewer_layers_than_an_answer_needs(cloud: Cloud, wait: Wait) -> None:
    stream = Stream(cloud)
    stream.send(*chunks(LAYERS[:2], **budget(min_layers=3)))
    await wait.for_bytes(ENDS[1])
    wait.over.set()
    assert "2 of at least 3 layers" in (await stream.answer()).error_message
    stream.send(None)


async def test_the_deadline_ends_the_wait(cloud: Cloud) -> None:
    """The one test without an event: the answer is there although the rest never comes."""
    stream = Stream(cloud)
    stream.send(*chunks(LAYERS[:2], latency_budget_ms=LONG_MS, way_back_ms=LONG_MS - 2_000.0))
    found, came = told(await stream.answer())
    np.testing.assert_allclose(found, expected(2), rtol=1e-4)
    assert came.layers == 2
    stream.send(None)


@pytest.mark.parametrize("way_back_ms", [LONG_MS, 2 * LONG_MS, float("inf")])
async def test_nothing_is_waited_for_where_the_way_back_takes_all(
    cloud: Cloud, way_back_ms: float
) -> None:
    stream = Stream(cloud)
    stream.send(*chunks(LAYERS[:2], id="some", **budget(way_back_ms=way_back_ms)))
    stream.send(chunk(FRAME[: ENDS[0] - 1], 0, id="none", **budget(way_back_ms=way_back_ms)))
    assert told(await stream.answer())[1].layers in (1, 2)
    assert "0 of at least 1 layers" in (await stream.answer()).error_message
    stream.send(None)


@pytest.mark.parametrize("least", [0, 6, -1, float("nan"), "many"])
async def test_a_number_of_layers_that_the_frame_does_not_have(
    cloud: Cloud, least: oip.Value
) -> None:
    stream = Stream(cloud)
    stream.send(chunk(FRAME, 0, **budget(min_layers=least)))
    assert "parameter min_layers" in (await stream.answer()).error_message
    stream.send(None)


async def test_chunks_of_two_frames_between_each_other(cloud: Cloud) -> None:
    other = MODEL.layers(MODEL.head(random_pixels(4)))
    first, second = chunks(LAYERS, id="a", **budget()), chunks(other, id="b", **budget())
    stream = Stream(cloud)
    stream.send(*itertools.chain.from_iterable(zip(first, second, strict=True)))
    answers = [await stream.answer(), await stream.answer()]
    assert [each.infer_response.id for each in answers] == ["a", "b"]
    np.testing.assert_allclose(told(answers[0])[0], expected(5), rtol=1e-4)
    wanted = MODEL.tail(MODEL.decoded(other, 5))
    np.testing.assert_allclose(told(answers[1])[0], wanted, rtol=1e-4)
    stream.send(None)


BROKEN: list[tuple[str, Sequence[pb.ModelInferRequest], str]] = [
    ("out of order", [chunk(LAYERS[0], 0), chunk(LAYERS[2], ENDS[1])], "comes next"),
    ("twice", [*chunks(LAYERS[:2]), chunk(LAYERS[1], ENDS[0])], "comes next"),
    ("missing", [*chunks(LAYERS[:2]), chunk(LAYERS[3], ENDS[2])], "comes next"),
    ("longer than it says", [*chunks([*LAYERS[:4], LAYERS[4] + b"\0"])], "more bytes"),
    ("changed", [chunk(LAYERS[0], 0), chunk(bytes(len(LAYERS[1])), ENDS[0])], "checksum"),
    ("too long a chunk", [chunk(LAYERS[0], 0), chunk(bytes(CHUNK_BYTES + 1), ENDS[0])], "at most"),
    ("too long a first chunk", [chunk(bytes(CHUNK_BYTES + 1), 0)], "at most"),
    ("no frame", [chunk(b"nothing of the kind", 0)], "not a frame"),
    ("no beginning", [chunk(LAYERS[1], ENDS[0])], "never began"),
    ("the same id twice", [chunk(LAYERS[0], 0), chunk(LAYERS[0], 0)], "has the id"),
    ("half an offset", [chunk(LAYERS[0], 0.5)], "must be a whole number"),
    ("below zero", [chunk(LAYERS[0], -1)], "must be a whole number"),
    ("no such model", [chunk(LAYERS[0], 0, model="none")], "unknown model"),
]


@pytest.mark.parametrize(
    ("sent", "message"), [(b, c) for _, b, c in BROKEN], ids=[a for a, _, _ in BROKEN]
)
async def test_what_is_no_frame(
    cloud: Cloud, sent: Sequence[pb.ModelInferRequest], message: str
) -> None:
    """The stream goes on: the next request on it is answered."""
    stream = Stream(cloud)
    first = pb.ModelInferRequest()
    first.CopyFrom(sent[0])
    oip.set_parameters(first.parameters, budget())
    whole = list(chunks(LAYERS, id="next", **budget()))
    stream.send(first, *sent[1:], *whole, None)
    responses = []
    try:
        while True:
            responses.append(await stream.answer())
    except StopAsyncIteration:
        pass
    faults = [each.error_message for each in responses if each.error_message]
    assert any(message in fault for fault in faults), faults
    by_id = {each.infer_response.id: each for each in responses if not each.error_message}
    np.testing.assert_allclose(told(by_id["next"])[0], expected(5), rtol=1e-4)


async def test_a_stream_that_ends_in_the_middle(cloud: Cloud) -> None:
    """It is answered from what came, at once: no more will."""
    stream = Stream(cloud)
    stream.send(*chunks(LAYERS[:3], **budget()), None)
    found, came = told(await stream.answer())
    np.testing.assert_allclose(found, expected(3), rtol=1e-4)
    assert came.layers == 3


async def test_a_stream_that_ends_before_there_is_anything(cloud: Cloud) -> None:
    stream = Stream(cloud)
    stream.send(chunk(FRAME[: ENDS[0] - 1], 0, **budget()), None)
    assert "ended before enough" in (await stream.answer()).error_message


async def test_a_caller_who_leaves_takes_the_frame_along(cloud: Cloud, wait: Wait) -> None:
    async def sent() -> AsyncIterator[pb.ModelInferRequest]:
        for each in chunks(LAYERS[:2], **budget()):
            yield each
        await asyncio.Event().wait()

    call = cloud.stub.ModelStreamInfer(sent(), timeout=60)
    await wait.for_bytes(ENDS[1])
    call.cancel()
    stream = Stream(cloud)  # and the next is answered
    stream.send(*chunks(LAYERS, **budget()), None)
    assert told(await stream.answer())[1].whole


async def test_a_frame_in_layers_is_not_a_whole_one(cloud: Cloud) -> None:
    """By a call of its own it would have to come whole: version 1 does that for fewer bytes."""
    request = chunk(FRAME, 0, **budget())
    del request.parameters[oip.FRAME_OFFSET]
    with pytest.raises(grpc.aio.AioRpcError, match="a whole frame is of version 1"):
        await cloud.stub.ModelInfer(request)


# The pure part: any messages at all.


def in_two(piece: bytes) -> list[bytes]:
    return [piece[: len(piece) // 2], piece[len(piece) // 2 :]]


PIECES = [half for layer in LAYERS for half in in_two(layer)]
GOOD = list(chunks(PIECES))


async def gather(asked: "AsyncIterator[object]") -> list[object]:
    """All requests of a stream; each frame is opened, and what came of it gathered at the end."""
    outcomes: list[object] = []
    tasks = []

    async def one(upload: Upload) -> object:
        try:
            codec_of(upload.open().header, MODEL.at_cut)
            upload.admit()
            layers = await upload.gathered(least=1, wait_ms=lambda: 60_000.0)
        except HybridgeError as error:
            return error
        finally:
            upload.close()
        return layers

    async for each in asked:
        fault, upload = getattr(each, "fault", None), getattr(each, "upload", None)
        if upload is not None:
            tasks.append(asyncio.ensure_future(one(upload)))
        else:
            outcomes.append(fault)
    return [*outcomes, *(await asyncio.gather(*tasks))]


async def stream_of(
    messages: Sequence[pb.ModelInferRequest],
) -> AsyncIterator[pb.ModelInferRequest]:
    for message in messages:
        yield message
        await asyncio.sleep(0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, len(GOOD) - 1), max_size=14))
def test_any_order_with_any_gaps_and_repeats(order: list[int]) -> None:
    """What is answered is a beginning of the frame; everything else is an error that says so."""
    outcomes = asyncio.run(gather(assembled(stream_of([GOOD[at] for at in order]))))
    for outcome in outcomes:
        if isinstance(outcome, tuple):
            joined = b"".join(outcome)
            assert joined == FRAME[HEADER_BYTES : HEADER_BYTES + len(joined)]
        else:
            assert isinstance(outcome, RequestError), outcome


def test_no_more_is_held_than_the_first_chunk_before_it_is_admitted() -> None:
    async def run() -> None:
        upload, taken = Upload(LAYERS[0]), []

        async def rest() -> None:
            for at, piece in enumerate(LAYERS[1:]):
                await upload.take(piece, offset=ENDS[at])
                taken.append(piece)

        task = asyncio.ensure_future(rest())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not taken
        upload.open()
        upload.admit()
        await task
        assert await upload.gathered(least=5, wait_ms=lambda: 0.0) == tuple(
            layer if at else layer[HEADER_BYTES:] for at, layer in enumerate(LAYERS)
        )

    asyncio.run(run())


def test_what_is_wrong_after_an_answer_is_told_to_nobody_but_its_sender() -> None:
    async def run() -> None:
        upload = Upload(LAYERS[0])
        upload.open()
        upload.admit()
        assert len(await upload.gathered(least=1, wait_ms=lambda: 0.0)) == 1
        upload.close()
        await upload.take(LAYERS[1], offset=ENDS[0])
        with pytest.raises(FrameError, match="comes next"):
            await upload.take(LAYERS[1], offset=ENDS[0])
        assert upload.came_bytes == ENDS[1]

    asyncio.run(run())


def test_a_stream_holds_no_frame_that_was_answered() -> None:
    """However many it carried: what is remembered of them is what tells a late chunk."""

    async def run() -> None:
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        uploads = []
        for _ in range(64):
            upload = Upload(bytes(bytearray(LAYERS[0])))
            upload.open()
            upload.admit()
            for at, layer in enumerate(LAYERS[1:]):
                await upload.take(bytes(bytearray(layer)), offset=ENDS[at])
            assert len(await upload.gathered(least=5, wait_ms=lambda: 0.0)) == 5
            upload.close()
            uploads.append(upload)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(uploads) == 64
        assert all(not upload._open.layers for upload in uploads)
        assert after - before < 64 * 4096

    asyncio.run(run())


def test_how_long_to_wait_is_asked_again() -> None:
    """A queue that has grown meanwhile leaves less time, one that has shrunk more."""

    async def run() -> None:
        upload = Upload(LAYERS[0])
        upload.open()
        waits = iter([1.0, 1.0, 1.0, 0.0])
        assert len(await upload.gathered(least=1, wait_ms=lambda: next(waits))) == 1
        assert not list(waits)
        with pytest.raises(DeadlineUnmet, match="1 of at least 2 layers"):
            await upload.gathered(least=2, wait_ms=lambda: -1.0)

    asyncio.run(run())

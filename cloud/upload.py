"""Frames in layers as they come up a stream, chunk by chunk.

The first chunk is a request like any other, whose tensor `frame` is the frame's beginning and whose
parameter `frame_offset` is 0. The others have its id, the offset at which they go on, and the
tensor alone. No more than one chunk is held before the frame's contract is known, and no more than
the contract allows after that.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from ..protos import open_inference_pb2 as pb
from ..shared import oip
from ..shared.arrival import CHUNK_BYTES, Arrival
from ..shared.errors import (
    DeadlineUnmet,
    FrameError,
    HybridgeError,
    InstanceLost,
    RequestError,
    TensorError,
)
from ..shared.frame import FrameHeader

_REMEMBERED = 64
"""Frames of one stream whose late chunks are still known for what they are."""


class Upload:
    """One frame under way. All methods belong to one event loop."""

    def __init__(self, start: bytes) -> None:
        self._start = start
        self._arrival: Arrival | None = None
        self._opened, self._settled = asyncio.Event(), asyncio.Event()
        self._fault: HybridgeError | None = None
        self._short: HybridgeError | None = None
        self._closed = False

    @property
    def header(self) -> FrameHeader:
        return self._open.header

    @property
    def came_bytes(self) -> int:
        """How much of the frame has come, its header among it."""
        return self._open.came_bytes

    @property
    def _open(self) -> Arrival:
        assert self._arrival is not None, "asked once it is open"
        return self._arrival

    def open(self) -> Arrival:
        """What has come so far; FrameError if it is no beginning of a frame."""
        if len(self._start) > CHUNK_BYTES:
            raise FrameError(f"a chunk of {len(self._start)} bytes; at most {CHUNK_BYTES}")
        self._arrival = arrival = Arrival(self._start)
        self._start = b""
        if arrival.complete:
            self._settled.set()
        return arrival

    def admit(self) -> None:
        """Lets in what has come behind the first chunk."""
        self._opened.set()

    async def take(self, chunk: bytes, *, offset: int) -> None:
        """The next chunk, once this is admitted; FrameError if it was answered and this is no rest.

        What is wrong with a frame under way is told to whoever gathers it.
        """
        await self._opened.wait()
        arrival = self._arrival
        if arrival is None or self._fault is not None:
            return
        try:
            if len(chunk) > CHUNK_BYTES:
                raise FrameError(f"a chunk of {len(chunk)} bytes; at most {CHUNK_BYTES}")
            if offset != arrival.came_bytes:
                raise FrameError(f"a chunk at {offset}, where {arrival.came_bytes} comes next")
            arrival.add(chunk)
        except FrameError as error:
            self._fault = error
            if self._closed:
                raise
        if self._fault is not None or arrival.complete:
            self._settled.set()

    def end(self, reason: HybridgeError) -> None:
        """No more will come; `reason` is what that means if it is too little."""
        if self._short is None:
            self._short = reason
        self._settled.set()

    def close(self) -> None:
        """It was answered, one way or the other; nothing of it is kept."""
        self._closed, self._start = True, b""
        if self._arrival is not None:
            self._arrival.close()
        self._opened.set()

    async def gathered(self, *, least: int, wait_ms: Callable[[], float]) -> tuple[bytes, ...]:
        """Its layers: all, or those there when the wait is over, `least` at least.

        How long to wait is asked again whenever it has passed. DeadlineUnmet if too few came.
        """
        arrival = self._open
        while not self._settled.is_set() and (left_ms := wait_ms()) > 0.0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_ms / 1e3):
                    await self._settled.wait()
        if self._fault is not None:
            raise self._fault
        if len(arrival.layers) < least:
            came = f"{len(arrival.layers)} of at least {least} layers were there"
            raise self._short or DeadlineUnmet(came)
        return tuple(arrival.layers)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of a stream; of one in layers what comes of it; or what is wrong with it."""

    request: oip.InferRequest
    upload: Upload | None = None
    fault: HybridgeError | None = None


async def assembled(messages: AsyncIterator[pb.ModelInferRequest]) -> AsyncIterator[Asked]:
    """What a stream asks; chunks go to the frames that they belong to."""
    uploads: dict[str, Upload] = {}
    try:
        async for message in messages:
            request = oip.read_request(message)
            if oip.FRAME_OFFSET not in request.parameters:
                yield Asked(request)
                continue
            try:
                begun = await _chunk(request, uploads)
            except HybridgeError as error:
                yield Asked(request, fault=error)
            else:
                if begun is not None:
                    yield begun
        for upload in uploads.values():
            upload.end(FrameError("the stream ended before enough of the frame had come"))
    finally:
        for upload in uploads.values():
            upload.end(InstanceLost("the stream was given up before enough of the frame had come"))


async def _chunk(request: oip.InferRequest, uploads: dict[str, Upload]) -> Asked | None:
    """The request that a chunk begins; None for one that continues a frame."""
    offset = request.parameters[oip.FRAME_OFFSET]
    if isinstance(offset, bool) or not isinstance(offset, int) or offset < 0:
        raise RequestError(f"parameter {oip.FRAME_OFFSET} must be a whole number, not {offset!r}")
    inputs = list(request.inputs)
    chunk = _frame_of(inputs)
    if offset:
        if request.id not in uploads:
            raise RequestError(f"a chunk at {offset} of a frame {request.id!r} that never began")
        await uploads[request.id].take(chunk, offset=offset)
        return None
    if request.id in uploads:
        raise RequestError(f"another frame of this stream has the id {request.id!r}")
    while len(uploads) >= _REMEMBERED:  # far more than a stream can have under way
        del uploads[next(iter(uploads))]
    upload = uploads[request.id] = Upload(chunk)
    return Asked(msgspec.structs.replace(request, inputs=inputs), upload)


def _frame_of(inputs: Iterable[oip.InputTensor]) -> bytes:
    for tensor in inputs:
        if tensor.name == oip.FRAME:
            if tensor.datatype != "UINT8" or tensor.shape != (len(tensor.raw),):
                raise TensorError(f"a chunk is UINT8 [{len(tensor.raw)}]")
            return bytes(tensor.raw)
    raise TensorError(f"a chunk of a frame has an input {oip.FRAME!r}")

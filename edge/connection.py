"""One connection to a cloud: calls out, answers in, faults in the words of our own error tree."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, Protocol, TypeVar

import grpc

from ..protos import fleet_pb2, fleet_pb2_grpc, oip
from ..protos import open_inference_pb2 as pb
from ..shared import oip as messages
from ..shared.errors import RemoteRefused, RemoteUnavailable, from_rpc, from_status
from ..shared.security import MAX_MESSAGE_BYTES, Address, Security

T = TypeVar("T")


class Connection(Protocol):
    """What the uplink needs of a connection; simulations have one of their own."""

    async def infer(
        self, request: pb.ModelInferRequest, *, timeout_s: float
    ) -> pb.ModelInferResponse:
        """The cloud's answer; RemoteError if there is none within the timeout."""
        ...

    async def infer_in_pieces(
        self, requests: Sequence[pb.ModelInferRequest], *, timeout_s: float
    ) -> pb.ModelInferResponse:
        """The same for a request in pieces; those not yet sent when the answer is there never are.

        What has arrived of them stands where a link is slow, as a single message's part does not.
        """
        ...

    async def probe(self, payload_bytes: int, *, timeout_s: float) -> fleet_pb2.ProbeResponse:
        """What the cloud says of itself; the payload is thrown away there."""
        ...

    async def close(self, *, grace_s: float | None = None) -> None:
        """Ends the connection; calls that run may take so long to end themselves."""
        ...


class GrpcConnection:
    """A channel that shares its TCP connection with no other."""

    def __init__(
        self,
        address: Address,
        *,
        security: Security,
        model: str,
        most_answer_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._model = model
        self._channel = security.channel(address, most_received_bytes=most_answer_bytes)
        self._stub = oip.Stub(self._channel)
        self._fleet = fleet_pb2_grpc.FleetStub(self._channel)

    async def infer(
        self, request: pb.ModelInferRequest, *, timeout_s: float
    ) -> pb.ModelInferResponse:
        return await _heard(_answer(self._stub.ModelInfer(request, timeout=timeout_s)))

    async def infer_in_pieces(
        self, requests: Sequence[pb.ModelInferRequest], *, timeout_s: float
    ) -> pb.ModelInferResponse:
        return await _heard(self._stream(requests, timeout_s))

    async def _stream(
        self, requests: Sequence[pb.ModelInferRequest], timeout_s: float
    ) -> pb.ModelInferResponse:
        call = self._stub.ModelStreamInfer(_each(requests), timeout=timeout_s)
        try:
            async for response in call:
                return _told(response)
        finally:
            call.cancel()
        raise RemoteRefused("the stream ended without an answer")

    async def probe(self, payload_bytes: int, *, timeout_s: float) -> fleet_pb2.ProbeResponse:
        payload = os.urandom(payload_bytes)
        request = fleet_pb2.ProbeRequest(payload=payload, model_name=self._model)
        return await _heard(_answer(self._fleet.Probe(request, timeout=timeout_s)))

    async def close(self, *, grace_s: float | None = None) -> None:
        await self._channel.close(grace_s)


async def _each(requests: Sequence[pb.ModelInferRequest]) -> AsyncIterator[pb.ModelInferRequest]:
    for request in requests:
        yield request


def _told(response: pb.ModelStreamInferResponse) -> pb.ModelInferResponse:
    """The answer on a stream; RemoteError for a fault, which does not end a stream."""
    if response.error_message:
        status = response.infer_response.parameters[messages.STATUS].string_param
        known = grpc.StatusCode.__members__
        raise from_status(known.get(status, grpc.StatusCode.UNKNOWN), response.error_message)
    return response.infer_response


async def _answer(call: "grpc.aio.UnaryUnaryCall[Any, T]") -> T:
    """What a call brings. Whoever leaves ends it, and interrupts nothing of grpc.aio.

    A batch of the core whose awaiter is cancelled is never freed, a kilobyte each time (grpc/grpc
    issue 43360, as of 1.85), and `call.cancel()` cancels the awaiter: so the call is ended beneath.
    """
    over = asyncio.Event()
    call.add_done_callback(lambda _: over.set())
    try:
        await over.wait()
    except asyncio.CancelledError:
        beneath = getattr(call, "_cython_call", None)
        if beneath is not None:
            beneath.cancel("nobody waits for it any more")
        else:
            call.cancel()
        raise
    return await call


async def _heard(call: Awaitable[T]) -> T:
    """What a call brings. A call that ends with its channel was not cancelled by who awaits it."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RemoteUnavailable("the connection was given up") from None

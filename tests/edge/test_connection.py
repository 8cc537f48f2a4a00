"""One connection to a cloud, over real gRPC."""

import asyncio
from typing import Any

import grpc
import pytest

from hybridge.edge.connection import GrpcConnection
from hybridge.protos import open_inference_pb2 as pb
from hybridge.shared.errors import RemoteTooLate, RemoteUnavailable
from hybridge.shared.security import Address, Security

from ..bundles import NAME, Small
from .clouds import fake_cloud

SOON_S = 20.0
REQUEST = pb.ModelInferRequest(model_name=NAME)


class Noted(GrpcConnection):
    """A connection that keeps its calls."""

    def __init__(self, address: Address) -> None:
        super().__init__(address, security=Security(), model=NAME)
        infer, self.calls = self._stub.ModelInfer, list[Any]()

        def noted(request: pb.ModelInferRequest, *, timeout: float) -> Any:
            self.calls.append(infer(request, timeout=timeout))
            return self.calls[-1]

        self._stub.ModelInfer = noted  # type: ignore[assignment]


async def test_who_leaves_ends_the_call_and_interrupts_nothing_of_grpc(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud:
        connection = Noted(cloud.address)
        asking = asyncio.ensure_future(connection.infer(REQUEST, timeout_s=SOON_S))
        await asyncio.wait_for(cloud.asked.wait(), SOON_S)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(cloud.gone.wait(), SOON_S)
        (call,) = connection.calls
        await asyncio.wait((call._call_response,), timeout=SOON_S)
        assert call._call_response.done()
        assert not call._call_response.cancelled()  # else its batch is never freed
        assert await call.code() is grpc.StatusCode.CANCELLED
        await connection.close()


async def test_a_call_ends_with_its_connection(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud:
        connection = Noted(cloud.address)
        asking = asyncio.ensure_future(connection.infer(REQUEST, timeout_s=SOON_S))
        await asyncio.wait_for(cloud.asked.wait(), SOON_S)
        await connection.close()
        with pytest.raises(RemoteUnavailable, match="given up"):
            await asking


async def test_answers_and_faults(small: Small) -> None:
    async with fake_cloud(small.bundle) as cloud:
        connection = Noted(cloud.address)
        with pytest.raises(RemoteTooLate):
            await connection.infer(REQUEST, timeout_s=0.01)
        cloud.allowed.set()
        answer = await connection.infer(REQUEST, timeout_s=SOON_S)
        assert answer.model_name == "small"
        await connection.probe(100, timeout_s=SOON_S)
        assert await cloud.probed.get() == 100
        await connection.close()

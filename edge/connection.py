"""One connection to a cloud: calls out, answers in, faults in the words of our own error tree."""

import os
from typing import Protocol

import grpc

from ..protos import fleet_pb2, fleet_pb2_grpc, oip
from ..protos import open_inference_pb2 as pb
from ..shared.errors import from_rpc
from ..shared.security import Address, Security


class Connection(Protocol):
    """What the uplink needs of a connection; simulations have one of their own."""

    async def infer(
        self, request: pb.ModelInferRequest, *, timeout_s: float
    ) -> pb.ModelInferResponse:
        """The cloud's answer; RemoteError if there is none within the timeout."""
        ...

    async def probe(self, payload_bytes: int, *, timeout_s: float) -> fleet_pb2.ProbeResponse:
        """What the cloud says of itself; the payload is thrown away there."""
        ...

    async def close(self, *, grace_s: float | None = None) -> None:
        """Ends the connection; calls that run may take so long to end themselves."""
        ...


class GrpcConnection:
    """A channel that shares its TCP connection with no other."""

    def __init__(self, address: Address, *, security: Security, model: str) -> None:
        self._model = model
        self._channel = security.channel(address)
        self._stub = oip.Stub(self._channel)
        self._fleet = fleet_pb2_grpc.FleetStub(self._channel)

    async def infer(
        self, request: pb.ModelInferRequest, *, timeout_s: float
    ) -> pb.ModelInferResponse:
        try:
            return await self._stub.ModelInfer(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from error

    async def probe(self, payload_bytes: int, *, timeout_s: float) -> fleet_pb2.ProbeResponse:
        payload = os.urandom(payload_bytes)
        request = fleet_pb2.ProbeRequest(payload=payload, model_name=self._model)
        try:
            return await self._fleet.Probe(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from error

    async def close(self, *, grace_s: float | None = None) -> None:
        await self._channel.close(grace_s)

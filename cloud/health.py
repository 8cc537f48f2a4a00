"""gRPC's own health protocol (grpc.health.v1), for load balancers and orchestrators."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health_pb2_grpc import HealthServicer

from ..protos.oip import Context

Status = pb.HealthCheckResponse


class Health(HealthServicer):  # type: ignore[misc]
    """Says of each service, and under an empty name of all, whether it serves."""

    def __init__(self, services: Iterable[str]) -> None:
        self._status = dict.fromkeys(("", *services), Status.NOT_SERVING)
        self._changed = asyncio.Event()
        self._closed = False

    def set(self, serving: bool) -> None:
        """Changes the status of all services, and tells those who watch."""
        status = Status.SERVING if serving else Status.NOT_SERVING
        self._status = dict.fromkeys(self._status, status)
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Serves no more, and ends all watching."""
        self._closed = True
        self.set(serving=False)

    async def Check(
        self, request: pb.HealthCheckRequest, context: Context
    ) -> pb.HealthCheckResponse:
        status = self._status.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r}")
        return Status(status=status)

    async def Watch(
        self, request: pb.HealthCheckRequest, context: Context
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        told = None
        while True:
            changed, closed = self._changed, self._closed
            status = self._status.get(request.service, Status.SERVICE_UNKNOWN)
            if status != told:
                yield Status(status=status)
                told = status
            if closed:
                return
            await changed.wait()

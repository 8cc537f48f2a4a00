"""The fleet service over a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import grpc.aio

from hybridge.protos import fleet_pb2, fleet_pb2_grpc
from hybridge.protos import open_inference_pb2 as pb


class Fleet(fleet_pb2_grpc.FleetServicer):
    async def Probe(self, request, context) -> fleet_pb2.ProbeResponse:
        tail = fleet_pb2.TailState(contract="c0ffee", compute_p50_ms=4, compute_p95_ms=6)
        return fleet_pb2.ProbeResponse(tails=[tail], queue_forecast_ms=len(request.payload))

    async def WatchResults(self, request, context) -> AsyncIterator[fleet_pb2.LateResult]:
        response = pb.ModelInferResponse(id="7").SerializeToString()
        yield fleet_pb2.LateResult(request_id=f"{request.client_id}-7", response=response)


async def test_probe_and_late_results() -> None:
    server = grpc.aio.server()
    fleet_pb2_grpc.add_FleetServicer_to_server(Fleet(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = fleet_pb2_grpc.FleetStub(channel)
            state = await stub.Probe(fleet_pb2.ProbeRequest(payload=bytes(12)), timeout=10)
            watch = stub.WatchResults(fleet_pb2.WatchResultsRequest(client_id="app"), timeout=10)
            late = [result async for result in watch]
    finally:
        await server.stop(grace=None)

    assert state.queue_forecast_ms == 12
    assert [tail.contract for tail in state.tails] == ["c0ffee"]
    assert [result.request_id for result in late] == ["app-7"]
    assert pb.ModelInferResponse.FromString(late[0].response).id == "7"

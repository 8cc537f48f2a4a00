"""What edges ask of a cloud beside inference."""

from collections.abc import Iterator

from .. import __version__
from ..protos import fleet_pb2 as pb
from ..protos.fleet_pb2_grpc import FleetServicer
from ..shared.codec.picture import formats_here
from ..shared.deadline import Clock, monotonic
from .front import SERVER_NAME, Front
from .inference import Inference


class FleetService(FleetServicer):
    """Answers probes, also while models are being loaded."""

    def __init__(self, front: Front, *, clock: Clock = monotonic) -> None:
        self._front = front
        self._clock = clock

    async def Probe(self, request: pb.ProbeRequest, context: object) -> pb.ProbeResponse:
        response = pb.ProbeResponse(
            server_name=SERVER_NAME,
            server_version=__version__,
            picture_formats=sorted(formats_here()),
        )
        if served := self._front.now:
            response.queue_forecast_ms = served.inference.worker.forecast_ms()
            response.uptime_s = self._clock() - served.since_s
            response.tails.extend(_tails(served.inference, request))
        return response


def _tails(inference: Inference, request: pb.ProbeRequest) -> Iterator[pb.TailState]:
    for model in inference.repository:
        if request.model_name not in ("", model.name):
            continue
        if request.model_version not in ("", model.version):
            continue
        for stage in model.by_contract.values():
            if cost := inference.worker.cost(stage):
                yield pb.TailState(
                    contract=stage.contract.id,
                    compute_p50_ms=cost.quantile_ms(0.5),
                    compute_p95_ms=cost.quantile_ms(0.95),
                    precision=model.precision,
                )

"""The Open Inference Protocol as the cloud serves it."""

import asyncio

from .. import __version__
from ..protos import open_inference_pb2 as pb
from ..protos.oip import Context, Servicer
from ..shared import oip
from ..shared.errors import DeadlineUnmet, UnknownModel
from .inference import Inference

SERVER_NAME = "hybridge-cloud"


class InferenceService(Servicer):
    """Serves from the first moment; what needs models waits until `inference` is there."""

    def __init__(self, inference: asyncio.Future[Inference]) -> None:
        self._inference = inference

    @property
    def ready(self) -> bool:
        return self._inference.done() and not self._inference.cancelled()

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: Context
    ) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self.ready)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=__version__)

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        if not self.ready:
            return pb.ModelReadyResponse(ready=False)
        try:
            self._inference.result().repository.model(request.name, request.version)
        except UnknownModel:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        inference = await self._loaded(context)
        return inference.metadata(name=request.name, version=request.version)

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelInferResponse:
        inference = await self._loaded(context)
        response = await inference.infer(
            oip.read_request(request), transport_left_s=context.time_remaining()
        )
        return oip.write_response(response)

    async def _loaded(self, context: Context) -> Inference:
        if not self.ready:
            try:
                async with asyncio.timeout(context.time_remaining()):
                    await asyncio.shield(self._inference)
            except TimeoutError:
                raise DeadlineUnmet("the models are still being loaded") from None
        return self._inference.result()

"""The Open Inference Protocol as the cloud serves it over gRPC."""

import asyncio
from collections.abc import AsyncIterator

from ..protos import open_inference_pb2 as pb
from ..protos.oip import Context, Servicer
from ..shared import oip
from ..shared.errors import (
    HybridgeError,
    Overloaded,
    RequestError,
    meaning,
    public_message,
)
from ..shared.oip_wire import read_infer, write_infer
from .front import Front
from .room import Place
from .stream import in_order
from .upload import Asked, assembled

_WANTS_FINAL = "triton_enable_empty_final_response"
_FINAL = "triton_final_response"
"""Triton's words on a stream: each request gets one response here, so each is its final one."""


class InferenceService(Servicer):
    """Serves from the first moment; what needs models waits until they are there."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: Context
    ) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._front.ready)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(**self._front.metadata())

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=self._front.model_ready(request.name, request.version))

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        served = await self._front.served(context.time_remaining())
        fields = served.inference.metadata(name=request.name, version=request.version)
        return pb.ModelMetadataResponse(**fields)

    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        served = await self._front.served(context.time_remaining())
        model = served.inference.repository.model(request.name, request.version)
        return pb.ModelConfigResponse(config=model.config)

    async def infer(self, message: bytes, context: Context) -> bytes:
        """ModelInfer, with messages as they are on the wire."""
        place = self._front.room.take(len(message), connection=context.peer())
        call = asyncio.current_task()
        assert call is not None
        call.add_done_callback(place.leave)  # once the answer has been sent
        left_s = context.time_remaining()
        try:
            request = read_infer(message)
        except RequestError as error:
            self._front.misread(error)
            raise
        answer = write_infer(await self._front.infer(request, left_s))
        place.answer(len(answer))
        return answer

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        held: set[Place] = set()

        async def answer(asked: Asked) -> tuple[pb.ModelStreamInferResponse, Place | None]:
            try:
                place = self._front.room.take(asked.size_bytes, connection=context.peer())
            except Overloaded as error:
                asked.close()
                return _failed(asked.request, error), None
            held.add(place)
            response = await self._answer(asked, context)
            place.answer(response.ByteSize())
            return response, place

        answers = in_order(assembled(requests), answer, until=self._front.draining)
        try:
            async for response, place in answers:
                yield response
                if place is not None:  # sent
                    held.discard(place)
                    place.leave()
        finally:
            for place in held:
                place.leave()

    async def _answer(self, asked: Asked, context: Context) -> pb.ModelStreamInferResponse:
        request = asked.request
        try:
            if asked.fault is not None:
                raise asked.fault
            left_s = context.time_remaining()
            answer = await self._front.infer(request, left_s, upload=asked.upload)
        except HybridgeError as error:
            return _failed(request, error)
        finally:
            asked.close()
        response = oip.write_response(answer)
        if request.parameters.get(_WANTS_FINAL):
            response.parameters[_FINAL].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=response)

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        served = await self._front.served(context.time_remaining())
        return pb.ModelStatisticsResponse(**served.statistics(request.name, request.version))

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        served = await self._front.served(context.time_remaining())
        response = pb.RepositoryIndexResponse()
        for model in await served.control.index(ready_only=request.ready):
            response.models.add(**model)
        return response

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        served = await self._front.served(context.time_remaining())
        given = {name: _value(parameter) for name, parameter in request.parameters.items()}
        await served.control.load(request.model_name, parameters=given)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        served = await self._front.served(context.time_remaining())
        await served.control.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def SystemSharedMemoryStatus(
        self, request: pb.SystemSharedMemoryStatusRequest, context: Context
    ) -> pb.SystemSharedMemoryStatusResponse:
        shared_memory = (await self._front.served(context.time_remaining())).shared_memory
        response = pb.SystemSharedMemoryStatusResponse()
        for told in shared_memory.status(request.name):
            region = pb.SystemSharedMemoryStatusResponse.RegionStatus(**told)
            response.regions[region.name].CopyFrom(region)
        return response

    async def SystemSharedMemoryRegister(
        self, request: pb.SystemSharedMemoryRegisterRequest, context: Context
    ) -> pb.SystemSharedMemoryRegisterResponse:
        shared_memory = (await self._front.served(context.time_remaining())).shared_memory
        shared_memory.register(
            request.name, key=request.key, offset=request.offset, size_bytes=request.byte_size
        )
        return pb.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, context: Context
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        served = await self._front.served(context.time_remaining())
        served.shared_memory.unregister(request.name)
        return pb.SystemSharedMemoryUnregisterResponse()


def _failed(request: oip.InferRequest, error: HybridgeError) -> pb.ModelStreamInferResponse:
    failed = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
    failed.parameters[oip.STATUS].string_param = meaning(error).grpc_status.name
    return pb.ModelStreamInferResponse(error_message=public_message(error), infer_response=failed)


def _value(parameter: pb.ModelRepositoryParameter) -> object:
    choice = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, choice) if choice else None

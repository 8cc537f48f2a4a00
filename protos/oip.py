"""The Open Inference Protocol's service: one table of methods, and from it servicer and stub.

Written by hand because the messages live in a package of our own (see open_inference.proto), while
the service must be found under the name that every OIP client calls.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, NoReturn, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from . import open_inference_pb2 as pb

SERVICE_NAME: Final = "inference.GRPCInferenceService"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """One method of the service; streams both ways, or not at all."""

    name: str
    request: type[Request]
    response: type[Response]
    streaming: bool = False

    @property
    def path(self) -> str:
        """The method's name on the wire."""
        return f"/{SERVICE_NAME}/{self.name}"


SERVER_LIVE = Method("ServerLive", pb.ServerLiveRequest, pb.ServerLiveResponse)
SERVER_READY = Method("ServerReady", pb.ServerReadyRequest, pb.ServerReadyResponse)
SERVER_METADATA = Method("ServerMetadata", pb.ServerMetadataRequest, pb.ServerMetadataResponse)
MODEL_READY = Method("ModelReady", pb.ModelReadyRequest, pb.ModelReadyResponse)
MODEL_METADATA = Method("ModelMetadata", pb.ModelMetadataRequest, pb.ModelMetadataResponse)
MODEL_CONFIG = Method("ModelConfig", pb.ModelConfigRequest, pb.ModelConfigResponse)
MODEL_INFER = Method("ModelInfer", pb.ModelInferRequest, pb.ModelInferResponse)
MODEL_STREAM_INFER = Method(
    "ModelStreamInfer", pb.ModelInferRequest, pb.ModelStreamInferResponse, streaming=True
)
MODEL_STATISTICS = Method("ModelStatistics", pb.ModelStatisticsRequest, pb.ModelStatisticsResponse)
REPOSITORY_INDEX = Method("RepositoryIndex", pb.RepositoryIndexRequest, pb.RepositoryIndexResponse)
REPOSITORY_MODEL_LOAD = Method(
    "RepositoryModelLoad", pb.RepositoryModelLoadRequest, pb.RepositoryModelLoadResponse
)
REPOSITORY_MODEL_UNLOAD = Method(
    "RepositoryModelUnload", pb.RepositoryModelUnloadRequest, pb.RepositoryModelUnloadResponse
)
SYSTEM_SHARED_MEMORY_STATUS = Method(
    "SystemSharedMemoryStatus",
    pb.SystemSharedMemoryStatusRequest,
    pb.SystemSharedMemoryStatusResponse,
)
SYSTEM_SHARED_MEMORY_REGISTER = Method(
    "SystemSharedMemoryRegister",
    pb.SystemSharedMemoryRegisterRequest,
    pb.SystemSharedMemoryRegisterResponse,
)
SYSTEM_SHARED_MEMORY_UNREGISTER = Method(
    "SystemSharedMemoryUnregister",
    pb.SystemSharedMemoryUnregisterRequest,
    pb.SystemSharedMemoryUnregisterResponse,
)

METHODS: Final[tuple[Method[Any, Any], ...]] = (
    SERVER_LIVE,
    SERVER_READY,
    SERVER_METADATA,
    MODEL_READY,
    MODEL_METADATA,
    MODEL_CONFIG,
    MODEL_INFER,
    MODEL_STREAM_INFER,
    MODEL_STATISTICS,
    REPOSITORY_INDEX,
    REPOSITORY_MODEL_LOAD,
    REPOSITORY_MODEL_UNLOAD,
    SYSTEM_SHARED_MEMORY_STATUS,
    SYSTEM_SHARED_MEMORY_REGISTER,
    SYSTEM_SHARED_MEMORY_UNREGISTER,
)


class Servicer:
    """Base of our servers: override what is served, the rest answers UNIMPLEMENTED."""

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: Context
    ) -> pb.ServerLiveResponse:
        """Whether the process is up."""
        await _unimplemented(context, SERVER_LIVE)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        """Whether the server answers inference requests."""
        await _unimplemented(context, SERVER_READY)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        """The server's name, version and extensions."""
        await _unimplemented(context, SERVER_METADATA)

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        """Whether one model answers inference requests."""
        await _unimplemented(context, MODEL_READY)

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """A model's versions, inputs and outputs."""
        await _unimplemented(context, MODEL_METADATA)

    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        """How a model is set up, in Triton's words."""
        await _unimplemented(context, MODEL_CONFIG)

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelInferResponse:
        """One inference."""
        await _unimplemented(context, MODEL_INFER)

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Many inferences on one stream; an override is an async generator."""
        await _unimplemented(context, MODEL_STREAM_INFER)
        yield pb.ModelStreamInferResponse()  # type: ignore[unreachable]  # makes this a generator

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        """Counts and times of a model since it was loaded."""
        await _unimplemented(context, MODEL_STATISTICS)

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        """All models in the repository, with their states."""
        await _unimplemented(context, REPOSITORY_INDEX)

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        """Loads a model, or loads it again."""
        await _unimplemented(context, REPOSITORY_MODEL_LOAD)

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        """Unloads a model."""
        await _unimplemented(context, REPOSITORY_MODEL_UNLOAD)

    async def SystemSharedMemoryStatus(
        self, request: pb.SystemSharedMemoryStatusRequest, context: Context
    ) -> pb.SystemSharedMemoryStatusResponse:
        """The regions of this machine's memory that tensors may lie in."""
        await _unimplemented(context, SYSTEM_SHARED_MEMORY_STATUS)

    async def SystemSharedMemoryRegister(
        self, request: pb.SystemSharedMemoryRegisterRequest, context: Context
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Names one."""
        await _unimplemented(context, SYSTEM_SHARED_MEMORY_REGISTER)

    async def SystemSharedMemoryUnregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, context: Context
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Forgets one, or all."""
        await _unimplemented(context, SYSTEM_SHARED_MEMORY_UNREGISTER)


class Stub:
    """The service as a client sees it: call `await stub.ModelInfer(request, timeout=...)`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.ServerLive = _unary(channel, SERVER_LIVE)
        self.ServerReady = _unary(channel, SERVER_READY)
        self.ServerMetadata = _unary(channel, SERVER_METADATA)
        self.ModelReady = _unary(channel, MODEL_READY)
        self.ModelMetadata = _unary(channel, MODEL_METADATA)
        self.ModelConfig = _unary(channel, MODEL_CONFIG)
        self.ModelInfer = _unary(channel, MODEL_INFER)
        self.ModelStreamInfer = _stream(channel, MODEL_STREAM_INFER)
        self.ModelStatistics = _unary(channel, MODEL_STATISTICS)
        self.RepositoryIndex = _unary(channel, REPOSITORY_INDEX)
        self.RepositoryModelLoad = _unary(channel, REPOSITORY_MODEL_LOAD)
        self.RepositoryModelUnload = _unary(channel, REPOSITORY_MODEL_UNLOAD)
        self.SystemSharedMemoryStatus = _unary(channel, SYSTEM_SHARED_MEMORY_STATUS)
        self.SystemSharedMemoryRegister = _unary(channel, SYSTEM_SHARED_MEMORY_REGISTER)
        self.SystemSharedMemoryUnregister = _unary(channel, SYSTEM_SHARED_MEMORY_UNREGISTER)


def add_servicer(
    server: grpc.aio.Server,
    servicer: Servicer,
    *,
    infer: Callable[[bytes, Context], Awaitable[bytes]] | None = None,
    parse: Callable[[bytes], pb.ModelInferRequest] = pb.ModelInferRequest.FromString,
) -> None:
    """Serve `servicer` on `server`, which must not have been started.

    `infer` answers ModelInfer in the servicer's place, with messages as they are on the wire;
    `parse` reads the requests of the others that bring tensors.
    """
    handlers = {method.name: _handler(servicer, method, parse) for method in METHODS}
    if infer is not None:
        handlers[MODEL_INFER.name] = grpc.unary_unary_rpc_method_handler(infer)
    generic = grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)
    server.add_generic_rpc_handlers((generic,))


def _handler(
    servicer: Servicer, method: Method[Any, Any], parse: Callable[[bytes], pb.ModelInferRequest]
) -> grpc.RpcMethodHandler[Any, Any]:
    make = (
        grpc.stream_stream_rpc_method_handler
        if method.streaming
        else grpc.unary_unary_rpc_method_handler
    )
    return make(
        getattr(servicer, method.name),
        request_deserializer=(
            parse if method.request is pb.ModelInferRequest else method.request.FromString
        ),
        response_serializer=method.response.SerializeToString,
    )


def _unary(
    channel: grpc.aio.Channel, method: Method[Request, Response]
) -> grpc.aio.UnaryUnaryMultiCallable[Request, Response]:
    return channel.unary_unary(
        method.path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.response.FromString,
    )


def _stream(
    channel: grpc.aio.Channel, method: Method[Request, Response]
) -> grpc.aio.StreamStreamMultiCallable[Request, Response]:
    return channel.stream_stream(
        method.path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.response.FromString,
    )


async def _unimplemented(context: Context, method: Method[Any, Any]) -> NoReturn:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method.name} is not served here")
    raise AssertionError("abort always raises")

"""The boundary between gRPC and the rest: faults become statuses here, and nowhere else."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError

from .errors import HybridgeError, RequestError, meaning, public_message

log = logging.getLogger(__name__)

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def guarded(server: grpc.aio.Server) -> grpc.aio.Server:
    """The server, for adding services to: every fault of theirs has the status of the error table.

    A fault that is not in the tree is a defect of ours: it is logged whole and told as INTERNAL,
    without a word of the stack trace. An interceptor would do the same anew for each call.
    """
    return cast(grpc.aio.Server, _Guarded(server))


class _Guarded:
    """Guards what is added, once."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence["grpc.GenericRpcHandler"]) -> None:
        self._server.add_generic_rpc_handlers([_GuardedHandlers(each) for each in handlers])

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, _Handler]
    ) -> None:
        """Nothing: generated code adds the same as generic handlers too.

        For each registered method grpc.aio waits in a task of its own, and takes up all of them
        anew for each request.
        """


class _GuardedHandlers(grpc.GenericRpcHandler):
    def __init__(self, inner: "grpc.GenericRpcHandler") -> None:
        self._inner = inner
        self._made: dict[str, _Handler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "_Handler | None":
        method = handler_call_details.method
        made = self._made.get(method)
        if made is None:
            handler = self._inner.service(handler_call_details)
            if handler is None:  # whatever strangers ask for is not remembered
                return None
            made = self._made[method] = _guard(handler, method)
        return made


def _guard(handler: _Handler, method: str) -> _Handler:
    parse = handler.request_deserializer
    options: dict[str, Any] = {
        "request_deserializer": None,  # gRPC would tell a DecodeError as UNKNOWN
        "response_serializer": handler.response_serializer,
    }
    if handler.unary_unary:
        behaviour = _guard_unary(handler.unary_unary, method, parse)
        return grpc.unary_unary_rpc_method_handler(behaviour, **options)
    if handler.unary_stream:
        watch = _guard_watch(cast(Any, handler.unary_stream), method, parse)
        return grpc.unary_stream_rpc_method_handler(watch, **options)
    if handler.stream_stream:
        stream = _guard_stream(cast(Any, handler.stream_stream), method, parse)
        return grpc.stream_stream_rpc_method_handler(stream, **options)
    return handler


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception, method: str) -> None:
    """Ends a call with the status of an error."""
    if isinstance(error, HybridgeError):
        await context.abort(meaning(error).grpc_status, public_message(error))
    log.exception("defect in %s", method, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "internal error")


_Parse = Callable[[bytes], Any] | None


def _guard_unary(
    behaviour: Callable[..., Awaitable[Any]], method: str, parse: _Parse
) -> Callable[..., Any]:
    async def guarded(message: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behaviour(_parse(message, parse), context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # the boundary: nothing may leave as a stack trace
            return await abort(context, error, method)

    return guarded


def _parse(message: bytes, parse: _Parse) -> Any:
    try:
        return parse(message) if parse else message
    except DecodeError as error:
        raise RequestError(f"{len(message)} bytes that are no such message") from error


def _guard_watch(
    behaviour: Callable[..., AsyncIterator[Any]], method: str, parse: _Parse
) -> Callable[..., Any]:
    async def guarded(
        message: bytes, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Any]:
        try:
            async for response in behaviour(_parse(message, parse), context):
                yield response
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # the boundary: nothing may leave as a stack trace
            await abort(context, error, method)

    return guarded


def _guard_stream(
    behaviour: Callable[..., AsyncIterator[Any]], method: str, parse: _Parse
) -> Callable[..., Any]:
    async def guarded(
        messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[Any]:
        requests = (_parse(message, parse) async for message in messages)
        try:
            async for response in behaviour(requests, context):
                yield response
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # the boundary: nothing may leave as a stack trace
            await abort(context, error, method)

    return guarded

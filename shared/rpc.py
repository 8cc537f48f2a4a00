"""The boundary between gRPC and the rest: faults become statuses here, and nowhere else."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError

from .errors import HybridgeError, RequestError, meaning, public_message

log = logging.getLogger(__name__)

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]]


class FaultInterceptor(grpc.aio.ServerInterceptor):
    """Answers every fault with the status and the public text of the error table.

    A fault that is not in the tree is a defect of ours: it is logged whole and told as INTERNAL,
    without a word of the stack trace.
    """

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "_Handler | None":
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = handler_call_details.method
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                _guard_unary(handler.unary_unary, method, handler.request_deserializer),
                request_deserializer=None,  # gRPC would tell a DecodeError as UNKNOWN
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                _guard_watch(cast(Any, handler.unary_stream), method, handler.request_deserializer),
                request_deserializer=None,
                response_serializer=handler.response_serializer,
            )
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                _guard_stream(
                    cast(Any, handler.stream_stream), method, handler.request_deserializer
                ),
                request_deserializer=None,
                response_serializer=handler.response_serializer,
            )
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

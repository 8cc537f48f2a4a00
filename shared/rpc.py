"""The boundary between gRPC and the rest: faults become statuses here, and nowhere else."""

import asyncio
import logging
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError

from .errors import HybridgeError, RequestError, meaning, public_message
from .receiving import Receiving

log = logging.getLogger(__name__)

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


_CARRIERS = frozenset(("ModelInfer", "ModelStreamInfer", "Probe"))
"""The methods whose messages may be as long as any."""
_WORDS_BYTES = 1 << 16


class Doors(NamedTuple):
    """What is received of calls with one message each, and of streams."""

    calls: Receiving
    streams: Receiving


def open_doors() -> Doors:
    """Whatever comes is waited for."""
    return Doors(*(Receiving(places=sys.maxsize, patience_s=math.inf) for _ in range(2)))


def guarded(server: grpc.aio.Server, doors: Doors | None = None) -> grpc.aio.Server:
    """The server, for adding services to: every fault of theirs has the status of the error table.

    A fault that is not in the tree is a defect of ours: it is logged whole and told as INTERNAL,
    without a word of the stack trace. An interceptor would do the same anew for each call.
    """
    return cast(grpc.aio.Server, _Guarded(server, doors or open_doors()))


class _Guarded:
    """Guards what is added, once."""

    def __init__(self, server: grpc.aio.Server, doors: Doors) -> None:
        self._server = server
        self._doors = doors

    def add_generic_rpc_handlers(self, handlers: Sequence["grpc.GenericRpcHandler"]) -> None:
        self._server.add_generic_rpc_handlers(
            [_GuardedHandlers(each, self._doors) for each in handlers]
        )

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, _Handler]
    ) -> None:
        """Nothing: generated code adds the same as generic handlers too.

        For each registered method grpc.aio waits in a task of its own, and takes up all of them
        anew for each request.
        """


class _Made(NamedTuple):
    """A method's handler; and for calls with one message what receives it as a stream."""

    handler: _Handler
    patient: "_Handler | None" = None


class _GuardedHandlers(grpc.GenericRpcHandler):
    def __init__(self, inner: "grpc.GenericRpcHandler", doors: Doors) -> None:
        self._inner = inner
        self._doors = doors
        self._made: dict[str, _Made] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "_Handler | None":
        """Asked when a call's headers have come, in the task of the call."""
        method = handler_call_details.method
        made = self._made.get(method)
        if made is None:
            handler = self._inner.service(handler_call_details)
            if handler is None:  # whatever strangers ask for is not remembered
                return None
            made = self._made[method] = _guard(handler, method, self._doors)
        if made.patient is not None:
            call = asyncio.current_task()
            assert call is not None
            calls = self._doors.calls
            if not calls.begin(call):
                return made.patient
            call.add_done_callback(calls.end)  # whoever leaves before it has come
        return made.handler


def _guard(handler: _Handler, method: str, doors: Doors) -> _Made:
    parse = _of_words(handler.request_deserializer, method)
    options: dict[str, Any] = {
        "request_deserializer": None,  # gRPC would tell a DecodeError as UNKNOWN
        "response_serializer": handler.response_serializer,
    }
    if handler.unary_unary:
        unary = _guard_unary(cast(Any, handler.unary_unary), method, parse, doors.calls)
        return _Made(
            grpc.unary_unary_rpc_method_handler(unary.received, **options),
            grpc.stream_unary_rpc_method_handler(unary.patiently, **options),
        )
    if handler.unary_stream:
        watch = _guard_watch(cast(Any, handler.unary_stream), method, parse, doors.calls)
        return _Made(
            grpc.unary_stream_rpc_method_handler(watch.received, **options),
            grpc.stream_stream_rpc_method_handler(watch.patiently, **options),
        )
    if handler.stream_stream:
        stream = _guard_stream(cast(Any, handler.stream_stream), method, parse, doors.streams)
        return _Made(grpc.stream_stream_rpc_method_handler(stream, **options))
    return _Made(handler)


_Parse = Callable[[bytes], Any] | None
_Answer = Callable[[Any, _Context], Awaitable[Any]]
_Stream = Callable[[Any, _Context], AsyncIterator[Any]]


def _ending(context: _Context, error: Exception, method: str) -> Awaitable[NoReturn]:
    """What ends a call with the status of an error.

    To be awaited where no exception is handled any more, in a frame that does not hold the context.
    gRPC keeps in the call what this raises; that keeps the frames which it passes, and what was
    handled then; if those led back to the call, each refused message would stay in memory until the
    garbage collector comes by. (A status that is merely set is sent behind an empty message, after
    which no client tries again.)
    """
    if isinstance(error, HybridgeError):
        return context.abort(meaning(error).grpc_status, public_message(error))
    log.exception("defect in %s", method, exc_info=error)
    return context.abort(grpc.StatusCode.INTERNAL, "internal error")


def _answering(answer: _Answer, method: str) -> _Answer:
    """The same, whose faults become statuses."""

    async def guarded(asked: Any, context: _Context) -> Any:
        try:
            return await answer(asked, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # the boundary: nothing may leave as a stack trace
            ending = _ending(context, error, method)
        del asked, context
        return await ending

    return guarded


def _streaming(stream: _Stream, method: str) -> _Stream:
    """The same, whose faults become statuses."""

    async def guarded(asked: Any, context: _Context) -> AsyncIterator[Any]:
        try:
            async for response in stream(asked, context):
                yield response
            return
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # the boundary: nothing may leave as a stack trace
            ending = _ending(context, error, method)
        del asked, context
        await ending

    return guarded


class _Ways(NamedTuple):
    """One behaviour, for a message that is there, and for one that has to be waited for."""

    received: Callable[..., Any]
    patiently: Callable[..., Any]


def _guard_unary(behaviour: _Answer, method: str, parse: _Parse, receiving: Receiving) -> _Ways:
    def received(message: bytes, context: _Context) -> Awaitable[Any]:
        _came(receiving)
        return behaviour(_parse(message, parse), context)

    async def patiently(messages: AsyncIterator[bytes], context: _Context) -> Any:
        try:
            message = await receiving.soon(messages)
        except StopAsyncIteration:  # its caller has left
            return None
        return await received(message, context)

    return _Ways(_answering(received, method), _answering(patiently, method))


def _of_words(parse: _Parse, method: str) -> _Parse:
    """Of a call that carries nothing large, whose words are read on the event loop."""
    if parse is None or method.rpartition("/")[2] in _CARRIERS:
        return parse

    def short(message: bytes) -> Any:
        if len(message) > _WORDS_BYTES:
            raise RequestError(
                f"{len(message)} bytes in a call without tensors, at most {_WORDS_BYTES} are read"
            )
        return parse(message)

    return short


def _came(receiving: Receiving) -> None:
    """The message of the current call is there: its place is given back now, not at the end."""
    call = asyncio.current_task()
    assert call is not None
    receiving.end(call)
    call.remove_done_callback(receiving.end)


def _parse(message: bytes, parse: _Parse) -> Any:
    try:
        return parse(message) if parse else message
    except (DecodeError, IndexError) as error:
        raise RequestError(f"{len(message)} bytes that are no such message") from error


def _guard_watch(behaviour: _Stream, method: str, parse: _Parse, receiving: Receiving) -> _Ways:
    def received(message: bytes, context: _Context) -> AsyncIterator[Any]:
        _came(receiving)
        return behaviour(_parse(message, parse), context)

    async def patiently(messages: AsyncIterator[bytes], context: _Context) -> AsyncIterator[Any]:
        try:
            message = await receiving.soon(messages)
        except StopAsyncIteration:  # its caller has left
            return
        async for response in received(message, context):
            yield response

    return _Ways(_streaming(received, method), _streaming(patiently, method))


def _guard_stream(
    behaviour: _Stream, method: str, parse: _Parse, receiving: Receiving
) -> Callable[..., Any]:
    async def requests(messages: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        while True:
            try:
                message = await receiving.next(messages)
            except StopAsyncIteration:
                return
            yield _parse(message, parse)

    def stream(messages: AsyncIterator[bytes], context: _Context) -> AsyncIterator[Any]:
        return behaviour(requests(aiter(messages)), context)

    return _streaming(stream, method)

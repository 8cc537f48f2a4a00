"""An HTTP port on the event loop of the cloud, and what all that is served on one has in common."""

import asyncio
import logging
import socket
import zlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ..shared.errors import (
    ConfigError,
    HybridgeError,
    Overloaded,
    RequestError,
    meaning,
    public_message,
)
from ..shared.rest import error_body
from ..shared.security import MAX_MESSAGE_BYTES, Address, Security
from .room import Place, Room
from .statistics import PortFigures

log = logging.getLogger(__name__)


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a word of aiohttp is about more than what a stranger sent as HTTP and is none."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_of_ports = log.getChild("port")
_of_ports.addFilter(_is_ours)

_IDLE_S = 75.0
_HEADERS_S = 20.0
"""How long the headers of a connection's first request may take to come."""
_BODY_S = 60.0
"""How long a request's body may take to come, and a response to go: slow peers hold memory."""

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}

_SILENT: web.AppKey[dict[web.RequestHandler, asyncio.TimerHandle]] = web.AppKey("silent")
"""Connections on which no request has come yet, and what ends each."""

_ROOM: web.AppKey[Room] = web.AppKey("room")
_FAULT_NAMES: web.AppKey[Sequence[str]] = web.AppKey("fault_names")

_FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Full(asyncio.Protocol):
    """Tells one who connects that there are too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(_FULL)
        transport.close()


class Site:
    """Serves an application on one address, between `start` and `stop`."""

    def __init__(self, app: web.Application, *, grace_ms: float, connections: int) -> None:
        """So many `connections` may be open at a time."""
        self.figures = PortFigures(connections=self._open)
        self._most = connections
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_of_ports,
            shutdown_timeout=grace_ms / 1e3,
            keepalive_timeout=_IDLE_S,
            handler_cancellation=True,  # whoever leaves is not computed for
            auto_decompress=False,  # it would be done on the event loop: see read_body
        )
        self._silent = app[_SILENT]
        self._server: asyncio.Server | None = None

    async def start(self, address: Address, *, security: Security) -> Address:
        """Opens the port and returns it (port 0 picks a free one); ConfigError if it cannot."""
        context = security.server_context(address)
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            listener = socket.create_server((address.host, address.port), family=family)
        except OSError as error:
            raise ConfigError(f"cannot listen on {address}: {error.strerror}") from error
        await self._runner.setup()
        self._forget_those_who_leave()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, sock=listener, ssl=context)
        return Address(address.host, listener.getsockname()[1])

    async def stop(self) -> None:
        """Takes nothing new, lets what was accepted finish within the grace, then ends."""
        if self._server is not None:
            self._server.close()
        while self._silent:
            connection, timer = self._silent.popitem()
            timer.cancel()
            connection.force_close()
        await self._runner.cleanup()

    def _open(self) -> int:
        server = self._runner.server
        return 0 if server is None else len(server.connections)

    def _connection(self) -> asyncio.Protocol:
        """Of one who connects, and is let go again if no request comes."""
        server = self._runner.server
        assert server is not None
        if self._open() >= self._most:
            self.figures.refused += 1
            return _Full()
        connection = server()
        loop = asyncio.get_running_loop()
        self._silent[connection] = loop.call_later(_HEADERS_S, self._let_go, connection)
        return connection

    def _forget_those_who_leave(self) -> None:
        """Before any request: `connections` bounds those that are open, not those that were."""
        server = self._runner.server
        assert server is not None
        lost = server.connection_lost

        def forget(handler: web.RequestHandler, exc: BaseException | None = None) -> None:
            if timer := self._silent.pop(handler, None):
                timer.cancel()
            lost(handler, exc)

        server.connection_lost = forget  # type: ignore[method-assign]

    def _let_go(self, connection: web.RequestHandler) -> None:
        del self._silent[connection]
        connection.force_close()


def application(room: Room, *, fault_names: Sequence[str] = ("error",)) -> web.Application:
    """An empty application whose faults and slow readers are dealt with.

    What went wrong is told under these names of a JSON object.
    """
    app = web.Application(middlewares=[_send, _tell_faults], client_max_size=MAX_MESSAGE_BYTES)
    app[_SILENT] = {}
    app[_ROOM] = room
    app[_FAULT_NAMES] = fault_names
    return app


async def read_body(request: web.Request) -> bytes:
    """The whole body, inflated if it was packed; never more than the limit of a message."""
    if (request.content_length or 0) > MAX_MESSAGE_BYTES:
        raise web.HTTPRequestEntityTooLarge(MAX_MESSAGE_BYTES, request.content_length or 0)
    try:
        async with asyncio.timeout(_BODY_S):
            body = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the body did not come in {_BODY_S:g} s") from None
    encoding = request.headers.get("Content-Encoding", "identity").lower()
    if encoding == "identity":
        return body
    if encoding not in _WINDOW_BITS:
        raise web.HTTPUnsupportedMediaType(text=f"Content-Encoding {encoding!r} is not read")
    return await asyncio.to_thread(_inflate, body, _WINDOW_BITS[encoding])


def _inflate(body: bytes, window_bits: int) -> bytes:
    packed = zlib.decompressobj(window_bits)
    try:
        plain = packed.decompress(body, MAX_MESSAGE_BYTES + 1)
    except zlib.error as error:
        raise RequestError(f"a body that cannot be unpacked ({error})") from error
    if len(plain) > MAX_MESSAGE_BYTES:
        raise web.HTTPRequestEntityTooLarge(MAX_MESSAGE_BYTES)
    if not packed.eof or packed.unused_data:
        raise RequestError("a packed body that is cut off, or goes on behind its end")
    return plain


@web.middleware
async def _send(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Sends a response, or breaks the connection of one who does not read it."""
    if timer := request.app[_SILENT].pop(request.protocol, None):
        timer.cancel()
    with ExitStack() as stack:
        response: web.StreamResponse
        try:
            place = stack.enter_context(_place(request))
        except Overloaded as error:
            response = _fault(request, error)
        else:
            response = await handler(request)
            place.answer(response.content_length or 0)
        try:
            async with asyncio.timeout(_BODY_S):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            log.debug("%s %s: nobody waits for the response", request.method, request.path)
        return response


def _place(request: web.Request) -> Place:
    """For a request whose body has not been read yet; Overloaded if there is none."""
    size_bytes = 0
    if request.body_exists:
        told = "Content-Encoding" not in request.headers and request.content_length is not None
        size_bytes = (
            min(request.content_length or 0, MAX_MESSAGE_BYTES) if told else MAX_MESSAGE_BYTES
        )
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return request.app[_ROOM].take(size_bytes, connection=str(peer))


@web.middleware
async def _tell_faults(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every fault has the status and the text of the error table; the boundary of HTTP."""
    try:
        return await handler(request)
    except HybridgeError as error:
        return _fault(request, error)
    except web.HTTPException as error:
        response = _error(request, error.status, error.text or error.reason)
        if allowed := error.headers.get("Allow"):
            response.headers["Allow"] = allowed
        return response
    except Exception as error:  # nothing may leave as a stack trace
        log.exception("defect in %s %s", request.method, request.path, exc_info=error)
        return _error(request, 500, "internal error")


def _fault(request: web.Request, error: HybridgeError) -> web.Response:
    return _error(request, meaning(error).http_status, public_message(error))


def _error(request: web.Request, status: int, message: str) -> web.Response:
    body = error_body(message, names=request.app[_FAULT_NAMES])
    return web.Response(status=status, body=body, content_type="application/json")

"""The Open Inference Protocol as the cloud serves it over HTTP."""

import asyncio
from functools import partial
from typing import Any

import msgspec
from aiohttp import web
from google.protobuf.json_format import MessageToDict

from ..shared.deadline import monotonic
from ..shared.errors import RequestError
from ..shared.rest import HEADER_LENGTH, Body, decode_request, encode_response, json_body
from .front import Front, Served
from .web import application, read_body

_PARSE_ON_LOOP_BYTES = 1 << 15
"""So much JSON takes a quarter of a millisecond."""

JSON = "application/json"


def rest_app(front: Front) -> web.Application:
    """Answers /v2 and everything below it."""
    app, rest = application(front.room), _Rest(front)
    app.add_routes(
        [
            web.get("/v2", rest.server),
            web.get("/v2/health/live", rest.live),
            web.get("/v2/health/ready", rest.ready),
            web.get("/v2/models/stats", rest.statistics),
            web.post("/v2/repository/index", rest.index),
            web.post("/v2/repository/models/{model}/load", rest.load),
            web.post("/v2/repository/models/{model}/unload", rest.unload),
        ]
    )
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        app.add_routes(
            [
                web.get(path, rest.model),
                web.get(f"{path}/ready", rest.model_ready),
                web.get(f"{path}/config", rest.config),
                web.get(f"{path}/stats", rest.statistics),
                web.post(f"{path}/infer", rest.infer),
            ]
        )
    return app


async def infer_body(
    front: Front,
    body: bytes,
    *,
    header_bytes: int | None,
    model: str,
    version: str,
    arrived_s: float,
) -> Body:
    """The answer to a request's body, as a response's."""
    decode = partial(
        decode_request, body, header_bytes=header_bytes, model_name=model, model_version=version
    )
    long = (len(body) if header_bytes is None else header_bytes) > _PARSE_ON_LOOP_BYTES
    with served_now(front).inference.reading(model, version):
        request = await asyncio.to_thread(decode) if long else decode()
    response = await front.infer(request, None, arrived_s=arrived_s)
    return encode_response(response, request)


def infer_response(body: Body) -> web.Response:
    """A response to an inference over the protocol's own path."""
    if body.header_bytes is None:
        return web.Response(body=body.content, content_type=JSON)
    headers = {HEADER_LENGTH: str(body.header_bytes)}
    return web.Response(body=body.content, headers=headers, content_type="application/octet-stream")


def served_now(front: Front) -> Served:
    """The models; over HTTP nobody waits until they are loaded."""
    if front.now is None:
        raise web.HTTPServiceUnavailable(text="the models are still being loaded")
    return front.now


class _Rest:
    def __init__(self, front: Front) -> None:
        self._front = front

    async def server(self, request: web.Request) -> web.Response:
        return _json(self._front.metadata())

    async def live(self, request: web.Request) -> web.Response:
        return _json({"live": True})

    async def ready(self, request: web.Request) -> web.Response:
        ready = self._front.ready
        return _json({"ready": ready}, status=200 if ready else 503)

    async def model(self, request: web.Request) -> web.Response:
        inference = served_now(self._front).inference
        return _json(inference.metadata(name=_model(request), version=_version(request)))

    async def model_ready(self, request: web.Request) -> web.Response:
        repository = served_now(self._front).inference.repository
        ready = repository.model(_model(request), _version(request)).ready
        return _json({"name": _model(request), "ready": ready}, status=200 if ready else 503)

    async def config(self, request: web.Request) -> web.Response:
        repository = served_now(self._front).inference.repository
        config = repository.model(_model(request), _version(request)).config
        fields = MessageToDict(config, preserving_proto_field_name=True)
        return _json({**fields, "max_batch_size": config.max_batch_size})

    async def statistics(self, request: web.Request) -> web.Response:
        served = served_now(self._front)
        return _json(served.statistics(_model(request), _version(request)))

    async def infer(self, request: web.Request) -> web.Response:
        arrived_s = monotonic()
        header_bytes = _header_bytes(request)
        body = await infer_body(
            self._front,
            await read_body(request),
            header_bytes=header_bytes,
            model=_model(request),
            version=_version(request),
            arrived_s=arrived_s,
        )
        return infer_response(body)

    async def index(self, request: web.Request) -> web.Response:
        ready_only = (await _fields(request)).get("ready", False)
        if not isinstance(ready_only, bool):
            raise RequestError(f"ready must be true or false, not {ready_only!r}")
        return _json(await served_now(self._front).control.index(ready_only=ready_only))

    async def load(self, request: web.Request) -> web.Response:
        parameters = (await _fields(request)).get("parameters") or {}
        if not isinstance(parameters, dict):
            raise RequestError("parameters must be an object")
        await served_now(self._front).control.load(_model(request), parameters=parameters)
        return web.Response()

    async def unload(self, request: web.Request) -> web.Response:
        await served_now(self._front).control.unload(_model(request))
        return web.Response()


def _json(fields: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=json_body(fields), status=status, content_type=JSON)


def _model(request: web.Request) -> str:
    return request.match_info.get("model", "")


def _version(request: web.Request) -> str:
    return request.match_info.get("version", "")


def _header_bytes(request: web.Request) -> int | None:
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 12:
        raise RequestError(f"{HEADER_LENGTH} {text[:20]!r} is no number of bytes")
    return int(text)


async def _fields(request: web.Request) -> dict[str, Any]:
    """A JSON object that may be left out."""
    body = await read_body(request)
    try:
        return msgspec.json.decode(body, type=dict[str, Any]) if body else {}
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"not a JSON object ({error})") from error

"""SageMaker's container contract: GET /ping and POST /invocations.

Bodies are what Triton's container takes, JSON or JSON with binary tensors behind it, or a picture,
whose answer is labels and probabilities. The paths under /endpoints are those of the runtime's
client, so that it can be pointed here by its endpoint_url; the endpoint's name means nothing here.
"""

import re

from aiohttp import web

from ..shared import oip
from ..shared.answer import top_classes
from ..shared.deadline import monotonic
from ..shared.errors import RequestError
from ..shared.rest import Body, json_body
from ..shared.tensor import bytes_to_raw
from .front import Front
from .rest import JSON, infer_body, served_now
from .web import application, read_body

TARGET_MODEL = "X-Amzn-SageMaker-Target-Model"
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"

_BINARY = "application/vnd.sagemaker-triton.binary+json"
_BINARY_TYPE = re.compile(re.escape(_BINARY) + r"\s*;\s*json-header-size\s*=\s*(\d{1,12})\s*")
_PICTURES = frozenset(
    ("application/x-image", "image/bmp", "image/jpeg", "image/jpg", "image/png", "image/webp")
)
_ATTRIBUTES = (oip.LATENCY_BUDGET_MS, oip.PRIORITY)
_TOP = 5


def sagemaker_app(front: Front) -> web.Application:
    """Answers as a SageMaker container does."""
    app = application(front.room, fault_names=("error", "message"))  # boto3 shows the second
    container = _Container(front)
    app.add_routes(
        [
            web.get("/ping", container.ping),
            web.post("/invocations", container.invoke),
            web.post("/endpoints/{endpoint}/invocations", container.invoke),
        ]
    )
    return app


class _Container:
    def __init__(self, front: Front) -> None:
        self._front = front

    async def ping(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self._front.ready else 503)

    async def invoke(self, request: web.Request) -> web.Response:
        arrived_s = monotonic()
        content_type = request.headers.get("Content-Type", JSON)
        kind = content_type.partition(";")[0].strip().lower()
        model, version = self._target(request)
        binary = _BINARY_TYPE.fullmatch(content_type)
        if not binary and kind not in (JSON, *_PICTURES):
            raise web.HTTPUnsupportedMediaType(
                text=f"{content_type} is not read; send {JSON}, {_BINARY};json-header-size=N, "
                f"or one of {', '.join(sorted(_PICTURES))}"
            )
        content = await read_body(request)
        if kind in _PICTURES:
            return await self._classify(request, content, model, version, arrived_s)
        body = await infer_body(
            self._front,
            content,
            header_bytes=int(binary[1]) if binary else None,
            model=model,
            version=version,
            arrived_s=arrived_s,
        )
        return _response(body)

    async def _classify(
        self, request: web.Request, picture: bytes, model: str, version: str, arrived_s: float
    ) -> web.Response:
        labels = served_now(self._front).inference.repository.model(model, version).labels
        tensor = oip.InputTensor(oip.PICTURE, "BYTES", (1,), bytes_to_raw([picture]))
        response = await self._front.infer(
            oip.InferRequest(
                model_name=model,
                model_version=version,
                id="",
                parameters=_attributes(request),
                inputs=(tensor,),
                outputs=(oip.RequestedOutput(name=oip.PROBABILITIES, parameters={}),),
            ),
            None,
            arrived_s=arrived_s,
        )
        probabilities = response.outputs[oip.PROBABILITIES][0].astype("f4")
        top = top_classes(probabilities, _TOP)
        answer = {
            "model_name": response.model_name,
            "model_version": response.model_version,
            "labels": [labels[at] for at in top],
            "probabilities": [float(probabilities[at]) for at in top],
        }
        return web.Response(body=json_body(answer), content_type=JSON)

    def _target(self, request: web.Request) -> tuple[str, str]:
        """The model that a request names, or the only one."""
        if named := request.headers.get(TARGET_MODEL):
            name, _, version = named.partition("/")
            return name, version
        names = {model.name for model in served_now(self._front).inference.repository}
        if len(names) != 1:
            raise RequestError(
                f"{len(names)} models are served ({', '.join(sorted(names))}); name one as "
                f"{TARGET_MODEL}: NAME or NAME/VERSION"
            )
        return names.pop(), ""


def _attributes(request: web.Request) -> dict[str, oip.Value]:
    """A picture has no room for parameters: they come as `latency_budget_ms=100,priority=1`."""
    attributes: dict[str, oip.Value] = {}
    for pair in filter(None, re.split(r"[,;\s]+", request.headers.get(CUSTOM_ATTRIBUTES, ""))):
        name, _, value = pair.partition("=")
        if name not in _ATTRIBUTES:
            known = ", ".join(_ATTRIBUTES)
            raise RequestError(f"custom attribute {name!r} is unknown; there are {known}")
        attributes[name] = value
    return attributes


def _response(body: Body) -> web.Response:
    if body.header_bytes is None:
        return web.Response(body=body.content, content_type=JSON)
    content_type = f"{_BINARY};json-header-size={body.header_bytes}"
    return web.Response(body=body.content, headers={"Content-Type": content_type})

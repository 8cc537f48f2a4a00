"""A model that another server of the Open Inference Protocol holds: Triton, KServe, one of ours.

Raw tensors go there batch by batch, under the deadline of those who wait, and are given up when
nobody waits any more.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import grpc
import numpy as np

from ..protos import open_inference_pb2 as pb
from ..protos.model_config_pb2 import ModelConfig
from ..protos.oip import (
    MODEL_CONFIG,
    MODEL_INFER,
    MODEL_METADATA,
    MODEL_READY,
    Method,
    Request,
    Response,
)
from ..shared import oip
from ..shared.deadline import monotonic
from ..shared.errors import (
    BundleError,
    ConfigError,
    RemoteError,
    RemoteRefused,
    RemoteTooLate,
    RemoteUnavailable,
    from_rpc,
)
from ..shared.manifest import Large, OutputKind
from ..shared.security import Address, Security
from ..shared.side import Tensors
from ..shared.tensor import DTYPES, Array
from .audience import audience
from .backend import Backend, Output, Result, the_other
from .named import Slot, Source
from .priorities import Priorities
from .triton_config import priorities_of

_SCHEMES = ("grpc", "grpcs")
_ABOUT_S = 10.0
"""For questions about the model, and for runs that nobody waits for."""
_AWAY_S = 5.0
"""So long after it could not be reached a model is not called ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteUrl:
    """`grpc://HOST:PORT/MODEL` or `grpc://HOST:PORT/MODEL/VERSION`; `grpcs` speaks TLS."""

    address: Address
    model: str
    version: str = ""
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> "RemoteUrl":
        url = urlsplit(text)
        model, *version = url.path.strip("/").split("/")
        if url.scheme not in _SCHEMES or not model or len(version) > 1 or url.query or url.fragment:
            raise ConfigError(
                f"{text!r} is no remote model; write grpc://HOST:PORT/MODEL[/VERSION]"
            )
        return cls(
            address=Address.parse(url.netloc),
            model=model,
            version=version[0] if version else "",
            tls=url.scheme == "grpcs",
        )

    def __str__(self) -> str:
        path = "/".join(filter(None, (self.model, self.version)))
        return f"{'grpcs' if self.tls else 'grpc'}://{self.address}/{path}"


class Remote(Source):
    """A channel to it. Its methods block, and may be called from several threads."""

    device = "remote"

    def __init__(self, url: RemoteUrl, *, security: Security) -> None:
        """Asks it what it takes and gives.

        ConfigError where the address must not be spoken to so, BundleError if the server is not
        there, has no such model, or has one that is of no use here.
        """
        if url.tls and security.authority is None:
            raise ConfigError(f"{url} speaks TLS; name the authority with --tls-ca")
        self.url = url
        plain = Security(insecure=security.insecure)
        self._channel = (security if url.tls else plain).blocking_channel(url.address)
        self._away_until_s = 0.0
        name, version = url.model, url.version
        try:
            if not self._ask(MODEL_READY, pb.ModelReadyRequest(name=name, version=version)).ready:
                raise BundleError("it is not ready there")
            told = self._ask(MODEL_METADATA, pb.ModelMetadataRequest(name=name, version=version))
            self.takes, self.gives = _slots(told.inputs), _slots(told.outputs)
            config = self._config()
            self.max_batch = None if config is None else config.max_batch_size
            self._priorities = None if config is None else _levels(config)
        except (RemoteError, BundleError) as error:
            self._channel.close()
            raise BundleError(f"{url}: {error}") from error

    @property
    def ready(self) -> bool:
        """Whether it was reached when it was last asked, unless that is a while ago."""
        return monotonic() >= self._away_until_s

    def run(self, fed: Tensors, *, outputs: Sequence[str]) -> Tensors:
        """RemoteUnavailable, RemoteTooLate or RemoteRefused if it fails, each naming where."""
        request = pb.ModelInferRequest(model_name=self.url.model, model_version=self.url.version)
        for name, array in fed.items():
            oip.add_input(request, name, array)
        for name in outputs:
            request.outputs.add(name=name)
        waiting = audience()
        if waiting is not None and waiting.rank and self._priorities is not None:
            level = self._priorities.level(waiting.rank)
            oip.set_parameters(request.parameters, {oip.PRIORITY: level})
        try:
            response = self._ask(MODEL_INFER, request)
            self._away_until_s = 0.0
        except RemoteError as error:
            if isinstance(error, RemoteUnavailable):
                self._away_until_s = monotonic() + _AWAY_S
            raise type(error)(f"{self.url}: {error}") from error
        return {name: oip.output_array(response, name) for name in outputs}

    def close(self) -> None:
        self._channel.close()

    def _ask(self, method: Method[Request, Response], request: Request) -> Response:
        waiting = audience()
        left_s = _ABOUT_S
        if waiting is not None:
            left_s = waiting.deadline_s - monotonic()
            if left_s <= 0:
                raise RemoteTooLate("the deadline had passed before it was asked")
        multi: grpc.UnaryUnaryMultiCallable[Request, Response] = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        call = multi.future(request, timeout=left_s)
        if waiting is not None:
            waiting.when_gone(call.cancel)
        try:
            return call.result()
        except grpc.FutureCancelledError:
            raise RemoteTooLate("nobody waited for it any more") from None
        except grpc.RpcError as error:
            raise from_rpc(error) from error

    def _config(self) -> ModelConfig | None:
        """None where the server has no configuration to tell, as KServe's."""
        request = pb.ModelConfigRequest(name=self.url.model, version=self.url.version)
        try:
            return self._ask(MODEL_CONFIG, request).config
        except RemoteRefused:
            return None


class RemoteBackend(Backend):
    """The whole large model of a bundle, computed by another server.

    It holds the bundle's own graph, or is one of ours, whose answers are probabilities already.
    """

    device = "remote"

    def __init__(self, remote: Remote, large: Large, *, max_batch: int) -> None:
        """BundleError if the remote model is another."""
        self._remote = remote
        self._further = tuple(spec.name for spec in large.outputs)
        beside = [spec.name for spec in large.inputs]
        self._input = the_other(remote.takes, beside, "inputs")
        self._answer = the_other(remote.gives, self._further, "outputs")
        self._as_logits = self._answer == oip.PROBABILITIES and large.output is OutputKind.LOGITS
        if remote.max_batch is not None and remote.max_batch < max_batch:
            raise BundleError(
                f"{remote.url} takes {remote.max_batch} items at once and {max_batch} may be sent; "
                "serve with a --max-batch that fits"
            )

    @property
    def ready(self) -> bool:
        return self._remote.ready

    def run(self, batch: Array, sides: Tensors) -> Result:
        fed = {self._input: batch, **sides}
        made = self._remote.run(fed, outputs=(self._answer, *self._further))
        answer = cast(Output, made[self._answer])
        if self._as_logits:
            answer = np.log(np.maximum(answer, np.finfo(answer.dtype).tiny))
        return Result(answer, {name: made[name] for name in self._further})

    def close(self) -> None:
        self._remote.close()


def open_remote(
    large: Large, *, max_batch: int, url: RemoteUrl, security: Security
) -> RemoteBackend:
    """Connects; BundleError if the server is not there, or has another model."""
    remote = Remote(url, security=security)
    try:
        return RemoteBackend(remote, large, max_batch=max_batch)
    except BundleError:
        remote.close()
        raise


def _levels(config: ModelConfig) -> Priorities | None:
    """None where all requests are equal."""
    return priorities_of(config) if config.dynamic_batching.priority_levels else None


def _slots(told: Iterable[pb.ModelMetadataResponse.TensorMetadata]) -> dict[str, Slot]:
    slots: dict[str, Slot] = {}
    for tensor in told:
        if tensor.datatype not in DTYPES:
            raise BundleError(f"{tensor.name} is {tensor.datatype}, which is not served")
        slots[tensor.name] = Slot(tensor.name, tensor.datatype, tuple(tensor.shape))
    return slots

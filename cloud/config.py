"""How a cloud is set up."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ..shared.cores import usable_cores
from ..shared.errors import ConfigError
from ..shared.manifest import Precision, Runtime
from ..shared.security import MAX_MESSAGE_BYTES, Address, Security
from ..shared.signing import TrustStore
from ..shared.sizes import written_bytes
from .remote import RemoteUrl
from .room import CONNECTIONS_SHARE
from .shares import Shares
from .shelf import BundleShelf, Shelf, Shelves
from .triton_shelf import TritonShelf

DEFAULT_ADDRESS = Address("127.0.0.1", 8500)


class Engine(StrEnum):
    """Where batches are computed."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True, kw_only=True)
class CloudConfig:
    """Everything `hybridge cloud` can be told.

    `instances` runs at a time, each on one core; `queue_limit` requests may wait per model, not
    counting those of lower priority; under overload models have the instances by the weights in
    `shares`, 1 where there is none; a batch never holds more than `max_batch` items, nor does a
    request. On shutdown accepted requests get `grace_ms` to finish. With `preload` nothing is
    served before every tail is loaded and measured; without, tails come in the background or with
    their first request. Whole models and tails compute in `precision`, which their bundles must
    have been built with, by `runtime` or by the one that each bundle was built for. `http` is where
    the protocol is spoken over HTTP, `sagemaker` where SageMaker's container contract is kept,
    `metrics` where Prometheus may read; None: nowhere. Callers may load and unload models of the
    directory only with `model_control`. With `shared_memory` they may have tensors read from, and
    written to, memory of this machine. Requests and their answers take at most
    `request_memory_bytes` until these are sent. Each port for HTTP has at most `http_connections`,
    the one for gRPC `grpc_connections`.
    `model_repository` is a directory in Triton's layout, served beside the bundles.
    The whole large models of the bundles in `remotes` are computed by another server.
    Every `poll_s` seconds the directory is looked at, and what has changed in it is followed.

    Where `memory_limit_bytes` bounds what the process takes, or `idle_unload_s` how long a model
    stays that nobody calls, models are loaded when they are first called.

    Batches are computed in this process, or in `workers` others if that is above 0; by the engine
    Ray in so many actors at most and `least_workers` at least, of a cluster at `ray_address` or one
    of its own, where what has idled for `idle_worker_s` is let go. Each worker has the `instances`.
    """

    bundles: Path
    model_repository: Path | None = None
    remotes: Mapping[str, RemoteUrl] = field(default_factory=dict)
    trust: TrustStore
    address: Address = DEFAULT_ADDRESS
    http: Address | None = None
    sagemaker: Address | None = None
    metrics: Address | None = None
    security: Security = field(default_factory=Security)
    instances: int = field(default_factory=usable_cores)
    workers: int = 0
    engine: Engine = Engine.LOCAL
    least_workers: int = 0
    idle_worker_s: float = 60.0
    ray_address: str | None = None
    queue_limit: int = 64
    shares: Mapping[str, float] = field(default_factory=dict)
    max_batch: int = 8
    precision: Precision = Precision.FLOAT32
    runtime: Runtime | None = None
    preload: bool = False
    model_control: bool = False
    poll_s: float | None = None
    memory_limit_bytes: int | None = None
    idle_unload_s: float | None = None
    request_memory_bytes: int = 1 << 30
    http_connections: int = 1024
    grpc_connections: int = 1024
    shared_memory: bool = False
    advertise: bool = False
    grace_ms: float = 10_000.0

    def __post_init__(self) -> None:
        for name in (
            "instances",
            "queue_limit",
            "max_batch",
            "http_connections",
            "grpc_connections",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        Shares(self.shares)
        least_bytes = CONNECTIONS_SHARE * MAX_MESSAGE_BYTES
        if self.request_memory_bytes < least_bytes:
            raise ConfigError(
                f"{written_bytes(self.request_memory_bytes)} are too little for requests: the "
                f"largest need {written_bytes(least_bytes)}"
            )
        if self.workers < 0:
            raise ConfigError(f"workers must not be negative, and {self.workers} is")
        if self.workers and self.memory_limit_bytes is not None:
            raise ConfigError(
                "a memory limit is that of one process: it cannot be had with workers"
            )
        if self.engine is not Engine.RAY and (self.ray_address or self.least_workers):
            raise ConfigError("--ray-address and --least-workers are of --engine ray")
        if self.engine is Engine.RAY and not self.workers:
            raise ConfigError("the engine ray needs to know how many workers there may be")
        if self.poll_s is not None and not self.poll_s > 0:
            raise ConfigError(f"poll_s must be more than 0, not {self.poll_s:g}")
        if not self.grace_ms >= 0:
            raise ConfigError(f"grace_ms must not be negative, and {self.grace_ms:g} is")
        if self.memory_limit_bytes is not None and self.memory_limit_bytes < 1:
            raise ConfigError(f"no model fits into {self.memory_limit_bytes} bytes of memory")
        if self.idle_unload_s is not None and not self.idle_unload_s > 0:
            raise ConfigError(f"idle_unload_s must be above 0, not {self.idle_unload_s:g}")
        if not self.bundles.is_dir() and self.model_repository is None:
            raise ConfigError(f"{self.bundles} is no directory; build a bundle into it first")
        if self.model_repository is not None and not self.model_repository.is_dir():
            raise ConfigError(f"{self.model_repository} is no directory of models")

    def shelf(self, *, budget_bytes: int | None = None) -> Shelf:
        """Where its models come from, each of which has to fit into a budget."""
        bundles = BundleShelf(
            root=self.bundles,
            trust=self.trust,
            max_batch=self.max_batch,
            precision=self.precision,
            runtime=self.runtime,
            remotes=self.remotes,
            security=self.security,
            budget_bytes=budget_bytes,
        )
        if self.model_repository is None:
            return bundles
        others = TritonShelf(
            root=self.model_repository, max_batch=self.max_batch, security=self.security
        )
        return Shelves({shelf.root: shelf for shelf in (others, bundles) if shelf.root.is_dir()})

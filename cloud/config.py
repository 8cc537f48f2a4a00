"""How a cloud is set up."""

import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ..shared.errors import ConfigError
from ..shared.manifest import Precision, Runtime
from ..shared.security import Address, Security
from ..shared.signing import TrustStore

DEFAULT_ADDRESS = Address("127.0.0.1", 8500)


def usable_cores() -> int:
    """The cores this process may run on."""
    return len(os.sched_getaffinity(0))


class Engine(StrEnum):
    """Where batches are computed."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True, kw_only=True)
class CloudConfig:
    """Everything `hybridge cloud` can be told.

    `instances` runs at a time, each on one core; `queue_limit` requests may wait per model; a
    batch never holds more than `max_batch` items, nor does a request. On shutdown accepted
    requests get `grace_ms` to finish. With `preload` nothing is served before every tail is loaded
    and measured; without, tails come in the background or with their first request. Whole models
    and tails compute in `precision`, which their bundles must have been built with, by `runtime` or
    by the one that each bundle was built for. `http` is where the protocol is spoken over HTTP,
    `sagemaker` where SageMaker's container contract is kept, `metrics` where Prometheus may read;
    None: nowhere. Callers may load and unload models of the directory only with `model_control`.
    Batches are computed in this process, or in `workers` others if that is above 0; by the engine
    Ray in so many actors at most and `least_workers` at least, of a cluster at `ray_address` or one
    of its own, where what has idled for `idle_s` is let go. Each worker has the `instances`.
    """

    bundles: Path
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
    idle_s: float = 60.0
    ray_address: str | None = None
    queue_limit: int = 64
    max_batch: int = 8
    precision: Precision = Precision.FLOAT32
    runtime: Runtime | None = None
    preload: bool = False
    model_control: bool = False
    advertise: bool = False
    grace_ms: float = 10_000.0

    def __post_init__(self) -> None:
        for name in ("instances", "queue_limit", "max_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.workers < 0:
            raise ConfigError(f"workers must not be negative, and {self.workers} is")
        if self.engine is Engine.RAY and not self.workers:
            raise ConfigError("the engine ray needs to know how many workers there may be")
        if not self.grace_ms >= 0:
            raise ConfigError(f"grace_ms must not be negative, and {self.grace_ms:g} is")
        if not self.bundles.is_dir():
            raise ConfigError(f"{self.bundles} is no directory; build a bundle into it first")

"""How a cloud is set up."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from ..shared.errors import ConfigError
from ..shared.manifest import Precision, Runtime
from ..shared.security import Address, Security
from ..shared.signing import TrustStore

DEFAULT_ADDRESS = Address("127.0.0.1", 8500)


def usable_cores() -> int:
    """The cores this process may run on."""
    return len(os.sched_getaffinity(0))


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

    Where `memory_limit_bytes` bounds what the process takes, or `idle_unload_s` how long a model
    stays that nobody calls, models are loaded when they are first called.
    """

    bundles: Path
    trust: TrustStore
    address: Address = DEFAULT_ADDRESS
    http: Address | None = None
    sagemaker: Address | None = None
    metrics: Address | None = None
    security: Security = field(default_factory=Security)
    instances: int = field(default_factory=usable_cores)
    queue_limit: int = 64
    max_batch: int = 8
    precision: Precision = Precision.FLOAT32
    runtime: Runtime | None = None
    preload: bool = False
    model_control: bool = False
    memory_limit_bytes: int | None = None
    idle_unload_s: float | None = None
    advertise: bool = False
    grace_ms: float = 10_000.0

    def __post_init__(self) -> None:
        for name in ("instances", "queue_limit", "max_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.grace_ms >= 0:
            raise ConfigError(f"grace_ms must not be negative, and {self.grace_ms:g} is")
        if self.memory_limit_bytes is not None and self.memory_limit_bytes < 1:
            raise ConfigError(f"no model fits into {self.memory_limit_bytes} bytes of memory")
        if self.idle_unload_s is not None and not self.idle_unload_s > 0:
            raise ConfigError(f"idle_unload_s must be above 0, not {self.idle_unload_s:g}")
        if not self.bundles.is_dir():
            raise ConfigError(f"{self.bundles} is no directory; build a bundle into it first")

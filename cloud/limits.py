"""How much memory there is for models, once the server itself is there."""

from contextlib import suppress
from pathlib import Path

from ..shared.errors import ConfigError
from ..shared.manifest import Precision, Runtime
from ..shared.sizes import written_bytes
from .config import CloudConfig
from .memory import resident_bytes
from .residence import Limits

_GROWTH = 1 / 8
"""What the server itself still comes to take once it works, as a share of what it takes before."""


def limits_of(config: CloudConfig) -> Limits:
    """What is left of a memory limit now; blocking; ConfigError if nothing is."""
    if config.memory_limit_bytes is None:
        return Limits(idle_s=config.idle_unload_s)
    limit_bytes = config.memory_limit_bytes
    largest_bytes = _largest_file_bytes(config.bundles)
    if (
        config.runtime is Runtime.TORCH
        or config.precision is not Precision.FLOAT32
        or 2 * largest_bytes > limit_bytes - resident_bytes()
    ):
        with suppress(ImportError):  # whoever needs them says so
            from .torch_graph import backend, offload  # noqa: F401
    taken_bytes = resident_bytes()
    if taken_bytes >= limit_bytes:
        raise ConfigError(
            f"the server itself takes {written_bytes(taken_bytes)}, and --memory-limit allows "
            f"{written_bytes(limit_bytes)}; raise it"
        )
    budget_bytes = limit_bytes - int(taken_bytes * (1 + _GROWTH))
    return Limits(budget_bytes=max(budget_bytes, 0), idle_s=config.idle_unload_s)


def _largest_file_bytes(bundles: Path) -> int:
    return max((file.stat().st_size for file in bundles.glob("*/*/blobs/*")), default=0)

"""The edge agent's settings, validated once."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from ..shared.cascade import DELTA
from ..shared.errors import ConfigError
from ..shared.manifest import Manifest
from ..shared.objective import Objective
from ..shared.picture import MAX_PIXELS
from ..shared.security import Address, Security
from ..shared.signing import TrustStore
from .audit import AuditSettings
from .demand import ANYTHING, Demand
from .prices import Prices


@dataclass(frozen=True, kw_only=True)
class EdgeConfig:
    """One agent: its bundle, where it listens, and its cloud: given, to be found, or none.

    `objective` and `min_agreement` hold for every request that does not say otherwise; None: the
    bundle's. What `demand` forbids is forbidden to all. Final answers are waited for
    `follow_ms` beyond the deadline. Guarantees hold with confidence 1 - `delta`.
    """

    bundle: Path
    listen: Address
    trust: TrustStore
    cloud: Address | None = None
    discover: bool = False
    security: Security = field(default_factory=Security)
    threads: int = 1
    max_requests: int = 64
    max_pixels: int = MAX_PIXELS
    objective: Objective | None = None
    min_agreement: float | None = None
    demand: Demand = ANYTHING
    prices: Prices = field(default_factory=Prices)
    audit: AuditSettings = field(default_factory=AuditSettings)
    delta: float = DELTA
    follow_ms: float = 5_000.0

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= 64:
            raise ConfigError(f"--threads {self.threads}: use 1 to 64")
        if self.max_requests < 1:
            raise ConfigError(f"--max-requests {self.max_requests}: at least one")
        if self.max_pixels < 1:
            raise ConfigError(f"--max-pixels {self.max_pixels}: at least one")
        if not 0 < self.delta < 1:
            raise ConfigError(f"--delta {self.delta:g}: between 0 and 1, such as {DELTA:g}")
        if not 0 < self.follow_ms <= 3_600_000:
            raise ConfigError(f"--follow {self.follow_ms:g}: above 0 ms, at most an hour")

    def demand_of(self, manifest: Manifest) -> Demand:
        """What holds for requests to a bundle's model."""
        least = manifest.min_agreement if self.min_agreement is None else self.min_agreement
        return replace(
            self.demand, objective=self.objective or manifest.objective, min_agreement=least
        )

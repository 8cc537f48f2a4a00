"""What time on the device, bytes on the air and time in the cloud cost, in joules and in money."""

from dataclasses import dataclass

from ..shared.errors import ConfigError
from ..shared.objective import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Energy is the device's own; money is in whatever currency it is given.

    The defaults are a Raspberry Pi 4 with a busy core above idle (2.4 W) and an LTE uplink at
    5 Mbit/s: 0.438 W per Mbit/s and 1.288 W are 5.6 J per MB (Huang et al., "A close examination of
    performance and power characteristics of 4G LTE networks", MobiSys 2012, table 4).
    """

    device_w: float = 2.4
    joules_per_mb: float = 5.6
    per_gb: float = 0.0
    per_cloud_hour: float = 0.0

    def __post_init__(self) -> None:
        for name in ("device_w", "joules_per_mb", "per_gb", "per_cloud_hour"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative, not {getattr(self, name):g}")

    def missing(self, objective: Objective) -> str:
        """Why every plan is as good as another by an objective, and what to do; else empty."""
        if objective is Objective.COST and not (self.per_gb or self.per_cloud_hour):
            return (
                "objective cost: nothing has a price, so no plan is cheaper than another; "
                "give the edge --price-per-gb or --price-per-cloud-hour"
            )
        if objective is Objective.ENERGY and not (self.device_w or self.joules_per_mb):
            return (
                "objective energy: nothing takes any power, so no plan saves energy; "
                "give the edge --device-watts or --joules-per-mb"
            )
        return ""

    def energy_j(self, *, device_ms: float, size_bytes: int) -> float:
        """What a plan takes from the device's battery."""
        return self.device_w * device_ms / 1e3 + self.joules_per_mb * size_bytes / 1e6

    def money(self, *, size_bytes: int, cloud_ms: float) -> float:
        """What a plan costs whoever pays the network and the cloud."""
        return self.per_gb * size_bytes / 1e9 + self.per_cloud_hour * cloud_ms / 3.6e6

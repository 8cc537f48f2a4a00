"""What machine this is."""

import hashlib
import os
import platform
from pathlib import Path

import msgspec

from ..shared.cores import affine_cores, quota_cores
from .litert import runtime

# The instruction sets that decide how fast int8 and float kernels run.
_TELLING_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "fphp",
    "sve",
)


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A machine as far as it decides the speed of a model.

    `quota_cores` is how many cores' time a container's quota leaves it; 0 if there is no quota.
    """

    processor: str
    architecture: str
    cores: int
    memory_bytes: int
    features: tuple[str, ...]
    system: str
    runtime: str
    quota_cores: float = 0.0

    @property
    def fingerprint(self) -> str:
        """Names the machine's profile: same processor, cores, quota and runtime, same name."""
        facts = [self.processor, self.architecture, str(self.cores), self.runtime]
        if self.quota_cores:
            facts.append(f"{self.quota_cores:g} cores")
        return hashlib.sha256("|".join(facts).encode()).hexdigest()[:16]


def probe() -> Device:
    """Reads the machine; facts it does not tell are left empty."""
    cpu = _cpu_facts(Path("/proc/cpuinfo"))
    flags = (cpu.get("flags") or cpu.get("Features") or "").split()
    found = runtime()
    return Device(
        processor=cpu.get("model name") or _board() or platform.processor() or "unknown",
        architecture=platform.machine(),
        cores=affine_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        features=tuple(flag for flag in _TELLING_FEATURES if flag in flags),
        system=f"{platform.system()} {platform.release()}",
        runtime=f"{found.package} {found.version}",
        quota_cores=quota_cores(),
    )


def _cpu_facts(file: Path) -> dict[str, str]:
    facts: dict[str, str] = {}
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return facts
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            facts.setdefault(name.strip(), value.strip())
    return facts


def _board() -> str:
    """Arm boards name themselves in the device tree rather than in cpuinfo."""
    try:
        return Path("/proc/device-tree/model").read_text().strip("\0\n ")
    except OSError:
        return ""

"""Device profiles: how long each stage takes on one machine, and what it was measured under."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec
import numpy as np

from ..shared.errors import ConfigError
from ..shared.manifest import Precision
from .conditions import Conditions
from .probe import Device


class StageTime(msgspec.Struct, frozen=True, kw_only=True):
    """Quantiles of one stage's time, and how many runs they were read from.

    `cpu_ms` is the median of the CPU time, which other processes stretch little: what the stage
    takes on a quiet machine. It is 0 where several threads share the work. `drift` is the median of
    the last third of the runs over that of the first, of CPU time where there is one: it grows when
    the clock sinks.
    """

    p50_ms: float
    p95_ms: float
    p999_ms: float
    runs: int
    cpu_ms: float = 0.0
    drift: float = 1.0

    def scaled(self, factor: float) -> "StageTime":
        """The same stage on a machine that takes `factor` times as long."""
        return StageTime(
            p50_ms=self.p50_ms * factor,
            p95_ms=self.p95_ms * factor,
            p999_ms=self.p999_ms * factor,
            runs=self.runs,
            cpu_ms=self.cpu_ms * factor,
            drift=self.drift,
        )


class Origin(StrEnum):
    """Where the times of a profile come from."""

    MEASURED = "measured"
    ESTIMATED = "estimated"


def tail_stage(cut: str, precision: Precision = Precision.FLOAT32) -> str:
    """The profile's name for the cloud's part behind a cut (none: the whole model)."""
    part = f"tail:{cut}" if cut else "whole"
    return part if precision is Precision.FLOAT32 else f"{part}/{precision}"


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One machine's times, by stage name (devices/models.py names the stages).

    `threads` is per model run: another number of them is another profile. `memory_bytes` is the
    growth of the peak resident size by what was loaded and run (`light`, a head's stage), and in
    `device` that of everything the edge holds. `yardstick_ms` compares this machine with others
    (devices/yardstick.py). `factors` are those of an estimate, by kind of work.
    """

    device: Device
    bundle_sha256: str
    stages: dict[str, StageTime]
    threads: int = 1
    memory_bytes: dict[str, int] = {}
    conditions: Conditions = Conditions()
    measured_on: str = ""
    yardstick_ms: dict[str, float] = {}
    origin: Origin = Origin.MEASURED
    factors: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Runs:
    """The times of a stage's runs, in order, in ms: on the clock, and of the CPU."""

    clock_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def extend(self, others: "Runs") -> None:
        self.clock_ms.extend(others.clock_ms)
        self.cpu_ms.extend(others.cpu_ms)


def summarize(runs: Runs, *, threads: int = 1) -> StageTime:
    """Quantiles of measured times, of work that shares itself among so many threads.

    Fewer than 1,000 runs cannot show a p99.9; the largest stands in for it, stretched by half of
    its distance from the median, so that a short measurement is careful rather than hopeful.
    """
    times_ms = runs.clock_ms
    cpu_ms = runs.cpu_ms if threads == 1 else []
    p50, p95 = (float(value) for value in np.quantile(times_ms, [0.5, 0.95]))
    largest = max(times_ms)
    enough = len(times_ms) >= 1000
    p999 = float(np.quantile(times_ms, 0.999)) if enough else largest + (largest - p50) / 2
    return StageTime(
        p50_ms=p50,
        p95_ms=p95,
        p999_ms=p999,
        runs=len(times_ms),
        cpu_ms=float(np.median(cpu_ms)) if cpu_ms else 0.0,
        drift=_drift(cpu_ms or times_ms),
    )


def measure(
    work: Callable[[], object], *, runs: int = 50, warm_up: int = 5, threads: int = 1
) -> StageTime:
    """Times `work`, which is called on this thread and may share itself among more."""
    return summarize(time_runs(work, runs=runs, warm_up=warm_up), threads=threads)


def time_runs(work: Callable[[], object], *, runs: int, warm_up: int) -> Runs:
    """The time of each run on this thread, after some that are not counted."""
    for _ in range(warm_up):
        work()
    found = Runs()
    for _ in range(runs):
        start_ns, start_cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
        work()
        cpu_ns = time.thread_time_ns() - start_cpu_ns
        found.clock_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
        found.cpu_ms.append(cpu_ns / 1e6)
    return found


def today() -> str:
    """The day of a measurement, UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime())


def save_profile(profile: Profile, directory: Path) -> Path:
    """Writes this machine's file, whole or not at all; ConfigError for an estimate."""
    if profile.origin is not Origin.MEASURED:
        raise ConfigError("an estimate is not kept beside a bundle: only a machine's own times are")
    file = directory / _file_name(profile.device, threads=profile.threads)
    temporary = file.with_suffix(".part")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(profile)))
        temporary.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ConfigError(
            f"cannot write profile {file}: {error.strerror}; free some space or ask for the right "
            "to write there, then run `hybridge profile`"
        ) from error
    return file


def load_profile(
    directory: Path, device: Device, *, bundle_sha256: str, threads: int = 1
) -> Profile | None:
    """This machine's profile of a bundle; None if it was never measured here so."""
    file = directory / _file_name(device, threads=threads)
    if not file.exists():
        return None
    profile = _read(file)
    fits = profile.bundle_sha256 == bundle_sha256 and profile.threads == threads
    return profile if fits else None


def load_profiles(directory: Path, *, bundle_sha256: str) -> list[Profile]:
    """Every machine's profile of a bundle."""
    profiles = [_read(file) for file in sorted(directory.glob("*.json"))]
    return [profile for profile in profiles if profile.bundle_sha256 == bundle_sha256]


def _file_name(device: Device, *, threads: int) -> str:
    return f"{device.fingerprint}{f'-{threads}threads' if threads > 1 else ''}.json"


def _drift(times_ms: list[float]) -> float:
    third = len(times_ms) // 3
    first = float(np.median(times_ms[:third])) if third else 0.0
    return float(np.median(times_ms[-third:])) / first if first > 0 else 1.0


def _read(file: Path) -> Profile:
    try:
        profile = msgspec.json.decode(file.read_bytes(), type=Profile)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{file} is no device profile ({error}); delete it") from error
    for name, stage in profile.stages.items():
        if not (min(stage.p50_ms, stage.p95_ms, stage.p999_ms) >= 0 and _finite(stage)):
            raise ConfigError(f"{file}: what it says of {name} is no time; delete it")
    return profile


def _finite(stage: StageTime) -> bool:
    return max(stage.p50_ms, stage.p95_ms, stage.p999_ms) < float("inf")

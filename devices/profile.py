"""Device profiles: how long each stage takes on one machine."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from ..shared.errors import ConfigError
from .probe import Device


class StageTime(msgspec.Struct, frozen=True, kw_only=True):
    """Quantiles of one stage's time, and how many runs they were read from."""

    p50_ms: float
    p95_ms: float
    p999_ms: float
    runs: int


def tail_stage(cut: str) -> str:
    """The profile's name for the cloud's part behind a cut (none: the whole model)."""
    return f"tail:{cut}" if cut else "whole"


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One machine's times, by stage name (edge/stages.py names the stages)."""

    device: Device
    bundle_sha256: str
    stages: dict[str, StageTime]


def summarize(times_ms: list[float]) -> StageTime:
    """Quantiles of measured times.

    Fewer than 1,000 runs cannot show a p99.9; the largest stands in for it, stretched by half of
    its distance from the median, so that a short measurement is careful rather than hopeful.
    """
    p50, p95 = (float(value) for value in np.quantile(times_ms, [0.5, 0.95]))
    largest = max(times_ms)
    enough = len(times_ms) >= 1000
    p999 = float(np.quantile(times_ms, 0.999)) if enough else largest + (largest - p50) / 2
    return StageTime(p50_ms=p50, p95_ms=p95, p999_ms=p999, runs=len(times_ms))


def measure(work: Callable[[], object], *, runs: int = 50, warm_up: int = 5) -> StageTime:
    """Times `work` on this thread."""
    for _ in range(warm_up):
        work()
    times_ms: list[float] = []
    for _ in range(runs):
        start_ns = time.perf_counter_ns()
        work()
        times_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
    return summarize(times_ms)


def save_profile(profile: Profile, directory: Path) -> Path:
    """Writes DIRECTORY/FINGERPRINT.json, whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{profile.device.fingerprint}.json"
    temporary = file.with_suffix(".part")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(profile)))
    temporary.replace(file)
    return file


def load_profile(directory: Path, device: Device, *, bundle_sha256: str) -> Profile | None:
    """This machine's profile of a bundle; None if it was never measured here."""
    file = directory / f"{device.fingerprint}.json"
    if not file.exists():
        return None
    profile = _read(file)
    return profile if profile.bundle_sha256 == bundle_sha256 else None


def load_profiles(directory: Path, *, bundle_sha256: str) -> list[Profile]:
    """Every machine's profile of a bundle."""
    profiles = [_read(file) for file in sorted(directory.glob("*.json"))]
    return [profile for profile in profiles if profile.bundle_sha256 == bundle_sha256]


def _read(file: Path) -> Profile:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Profile)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{file} is no device profile ({error}); delete it") from error

"""Measuring in processes of their own, with the small bundle."""

import msgspec
import pytest

from hybridge.devices import profiling
from hybridge.devices.models import stage_names
from hybridge.devices.probe import probe
from hybridge.devices.profile import Origin, Profile
from hybridge.devices.profiling import profile_bundle
from hybridge.shared.bundle import Bundle
from hybridge.shared.errors import ConfigError

from ..bundles import CUT, Small, picture
from .dying import die

HEAD = f"head:{CUT}/int8"


@pytest.fixture(scope="module")
def measured(small: Small) -> tuple[Profile, list[tuple[str, int, int]]]:
    told: list[tuple[str, int, int]] = []
    profile = profile_bundle(
        small.bundle, picture(0), runs=10, on_stage=lambda *each: told.append(each)
    )
    return profile, told


def test_every_stage_of_the_table_and_its_memory(
    small: Small, measured: tuple[Profile, list[tuple[str, int, int]]]
) -> None:
    profile, _ = measured
    assert set(profile.stages) == set(stage_names(small.bundle.manifest))
    for stage in profile.stages.values():
        assert stage.runs == 10
        assert 0 < stage.p50_ms <= stage.p95_ms <= stage.p999_ms
        assert stage.cpu_ms > 0
    assert set(profile.memory_bytes) == {"light", HEAD, "device"}
    assert all(1 << 12 < grown < 1 << 29 for grown in profile.memory_bytes.values())
    assert profile.memory_bytes["device"] > profile.memory_bytes[HEAD]


def test_whose_it_is(small: Small, measured: tuple[Profile, list[tuple[str, int, int]]]) -> None:
    profile, _ = measured
    assert (profile.device, profile.threads) == (probe(), 1)
    assert profile.bundle_sha256 == small.bundle.sha256
    assert profile.origin is Origin.MEASURED
    assert profile.yardstick_ms
    assert len(profile.measured_on) == len("2026-01-31")


def test_progress(small: Small, measured: tuple[Profile, list[tuple[str, int, int]]]) -> None:
    _, told = measured
    names = stage_names(small.bundle.manifest)
    times = [each for each in told if not each[0].startswith("memory")]
    assert [name for name, _, _ in times] == list(names) * 3
    assert [done for _, done, _ in times] == list(range(3 * len(names)))
    assert [each[0] for each in told[len(times) :]] == [
        "memory of light", f"memory of {HEAD}", "memory of device",
    ]  # fmt: skip


def broken(bundle: Bundle) -> Bundle:
    """The bundle with a light model that is not there."""
    light = bundle.manifest.light
    gone = msgspec.structs.replace(light.blob, sha256="0" * 64)
    manifest = msgspec.structs.replace(
        bundle.manifest, light=msgspec.structs.replace(light, blob=gone)
    )
    return Bundle(path=bundle.path, manifest=manifest, sha256=bundle.sha256)


def test_an_error_of_the_process_is_raised_here(small: Small) -> None:
    with pytest.raises(ConfigError, match="LiteRT cannot load the model"):
        profile_bundle(broken(small.bundle), picture(0), runs=10)


def test_a_process_that_dies(small: Small) -> None:
    job = profiling._Job(bundle=small.bundle, picture=picture(0), runs=10, threads=1)
    with pytest.raises(ConfigError, match="ended with exit code 3; -9 means"):
        profiling._in_process(die, job, lambda what, done, total: None)

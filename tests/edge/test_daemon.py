"""The edge daemon, from a bundle on disk to an open port and back."""

import asyncio
import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

from hybridge.client import Client
from hybridge.devices.probe import probe
from hybridge.devices.profile import load_profile
from hybridge.edge import daemon as daemon_module
from hybridge.edge.config import EdgeConfig
from hybridge.edge.daemon import EdgeDaemon
from hybridge.edge.demand import Demand
from hybridge.edge.duration import NO_TIME
from hybridge.edge.outlook import device_stages
from hybridge.shared.bundle import open_bundle
from hybridge.shared.errors import BundleError, ConfigError, RemoteUnavailable
from hybridge.shared.privacy import FILE, encode_privacy
from hybridge.shared.security import Address
from hybridge.shared.signing import SigningKey, TrustStore

from .. import exposed
from ..bundles import SPLIT, Small, picture
from .conftest import ANY_PORT, PLANS, measured_copy, run_edge


@pytest.fixture
def config(small: Small, tmp_path: Path) -> EdgeConfig:
    return EdgeConfig(bundle=measured_copy(small, tmp_path), listen=ANY_PORT, trust=small.trust)


def infer(address: Address, seed: int = 0) -> np.ndarray:
    with Client(str(address)) as client:
        return client.infer(picture(seed), budget_ms=20_000).probabilities


async def check_serves(small: Small, daemon: EdgeDaemon) -> None:
    probabilities = await asyncio.to_thread(infer, daemon.address)
    np.testing.assert_allclose(probabilities, small.light(picture(0)), rtol=1e-6)


async def test_a_first_start_tests_and_measures_the_bundle(small: Small, tmp_path: Path) -> None:
    path = small.rewrite(tmp_path, lambda manifest: manifest)
    config = EdgeConfig(bundle=path, listen=ANY_PORT, trust=small.trust)
    async with run_edge(config) as daemon:
        await check_serves(small, daemon)
    bundle = open_bundle(path, trust=small.trust)
    profile = load_profile(bundle.profiles, probe(), bundle_sha256=bundle.sha256)
    assert profile is not None
    stages = {stage for plan in PLANS for stage in device_stages(plan)}
    assert set(profile.stages) == stages
    assert all(0 < time.p50_ms <= time.p95_ms <= time.p999_ms for time in profile.stages.values())


async def test_a_later_start_measures_nothing(
    small: Small, config: EdgeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(daemon_module, "measure_stages")
    monkeypatch.delattr(daemon_module, "self_test")
    async with run_edge(config) as daemon:
        await check_serves(small, daemon)


async def test_forecasts_of_one_thread_are_none_for_two(small: Small, config: EdgeConfig) -> None:
    bundle = open_bundle(config.bundle, trust=small.trust)
    two = EdgeConfig(bundle=config.bundle, listen=ANY_PORT, trust=small.trust, threads=2)
    async with run_edge(two) as daemon:
        await check_serves(small, daemon)
    known = {
        threads: load_profile(
            bundle.profiles, probe(), bundle_sha256=bundle.sha256, threads=threads
        )
        for threads in (1, 2)
    }
    assert known[1] is not None
    assert known[2] is not None
    assert known[1].stages["light"].runs == 50  # the one that was there
    assert known[2].stages["light"].runs == 20
    assert known[2].threads == 2


@pytest.mark.parametrize("share", [0.0, 0.5])
async def test_half_a_profile_is_measured_anew(
    small: Small, tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float
) -> None:
    path = measured_copy(small, tmp_path)
    (file,) = (path / "profiles").glob("*.json")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    async with run_edge(EdgeConfig(bundle=path, listen=ANY_PORT, trust=small.trust)):
        assert "it is measured anew" in caplog.text
    bundle = open_bundle(path, trust=small.trust)
    assert load_profile(bundle.profiles, probe(), bundle_sha256=bundle.sha256) is not None


async def test_a_profile_that_cannot_be_kept(
    small: Small, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = small.rewrite(tmp_path, lambda manifest: manifest)
    (path / "profiles").write_text("a file where the folder should be")
    config = EdgeConfig(bundle=path, listen=ANY_PORT, trust=small.trust)
    async with run_edge(config) as daemon:
        await check_serves(small, daemon)
    assert "cannot write profile" in caplog.text


async def check_start_fails(config: EdgeConfig, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        async with run_edge(config):
            raise AssertionError("it started")


async def test_bundles_that_cannot_be_used(small: Small, tmp_path: Path) -> None:
    zeros = {
        name: np.zeros_like(array)
        for name, array in np.load(
            small.bundle.file(small.bundle.manifest.golden.blob), allow_pickle=False
        ).items()
    }
    strange = small.with_golden(tmp_path / "strange", zeros)
    config = EdgeConfig(bundle=strange, listen=ANY_PORT, trust=small.trust)
    await check_start_fails(config, BundleError, "cannot be used here")
    altered = small.rewrite(tmp_path / "altered", lambda manifest: manifest)
    (altered / "blobs" / small.bundle.manifest.light.blob.sha256).write_bytes(b"other")
    config = EdgeConfig(bundle=altered, listen=ANY_PORT, trust=small.trust)
    await check_start_fails(config, BundleError, "was altered")
    config = EdgeConfig(bundle=altered, listen=ANY_PORT, trust=TrustStore(frozenset()))
    await check_start_fails(config, BundleError, "does not trust")


async def test_figures_beside_a_bundle_are_not_taken_from_anybody(
    small: Small, config: EdgeConfig, key: SigningKey
) -> None:
    measured = exposed.privacy(small.bundle.manifest, {SPLIT: 0.3})
    file = config.bundle / FILE
    file.write_bytes(encode_privacy(measured, key=key))
    await check_start_fails(config, BundleError, r"privacy\.json was signed by .* does not trust")
    file.write_bytes(encode_privacy(measured, key=small.key).replace(b"0.3,", b"0.0,"))
    await check_start_fails(config, BundleError, r"privacy\.json .* was altered")
    file.write_bytes(encode_privacy(measured, key=small.key))
    async with run_edge(config) as daemon:
        options = daemon.agent._outlook.options(
            device=lambda _: NO_TIME, transfer=lambda *_: NO_TIME, cloud=lambda _: NO_TIME
        )
        assert {each.plan: each.similarity for each in options}[SPLIT] == 0.3


@pytest.mark.parametrize(
    ("limit", "measured", "said"),
    [(1.0, None, False), (0.3, None, True), (0.5, 0.45, False), (0.3, 0.45, True)],
)
async def test_a_limit_that_nothing_can_meet_is_said(
    small: Small,
    config: EdgeConfig,
    caplog: pytest.LogCaptureFixture,
    limit: float,
    measured: float | None,
    said: bool,
) -> None:
    if measured is not None:
        known = exposed.privacy(small.bundle.manifest, {SPLIT: measured})
        (config.bundle / FILE).write_bytes(encode_privacy(known, key=small.key))
    limited = dataclasses.replace(config, demand=Demand(max_similarity=limit))
    async with run_edge(limited) as daemon:
        await check_serves(small, daemon)
    assert ("so none leaves the device" in caplog.text) is said


async def test_ports_that_cannot_be_opened(config: EdgeConfig) -> None:
    async with run_edge(config) as daemon:
        taken = EdgeConfig(bundle=config.bundle, listen=daemon.address, trust=config.trust)
        await check_start_fails(taken, ConfigError, "cannot listen")
    wide = EdgeConfig(bundle=config.bundle, listen=Address("0.0.0.0", 0), trust=config.trust)
    await check_start_fails(wide, ConfigError, "without TLS")


async def test_it_looks_for_a_cloud_until_there_is_one(
    small: Small, config: EdgeConfig, cloud: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    results: list[Address | Exception] = [RemoteUnavailable("nobody"), cloud]

    def find_cloud() -> Address:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(daemon_module, "find_cloud", find_cloud)
    searching = EdgeConfig(bundle=config.bundle, listen=ANY_PORT, trust=config.trust, discover=True)
    async with run_edge(searching) as daemon:
        assert daemon._search is not None
        await asyncio.wait_for(daemon._search, 20)
        assert daemon._agent is not None
        assert daemon._agent.uplink is not None
        assert daemon._agent.uplink.name == str(cloud)


@pytest.mark.parametrize("found", [Address("192.0.2.7", 8500), ConfigError("no multicast here")])
async def test_a_cloud_it_may_not_use_is_said_and_left(
    small: Small,
    config: EdgeConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    found: Address | ConfigError,
) -> None:
    def find_cloud() -> Address:
        if isinstance(found, ConfigError):
            raise found
        return found

    monkeypatch.setattr(daemon_module, "find_cloud", find_cloud)
    searching = EdgeConfig(bundle=config.bundle, listen=ANY_PORT, trust=config.trust, discover=True)
    with caplog.at_level(logging.WARNING):
        async with run_edge(searching) as daemon:
            assert daemon._search is not None
            await asyncio.wait_for(daemon._search, 20)
            await check_serves(small, daemon)
    assert "answering alone" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"threads": 0},
        {"threads": 65},
        {"max_requests": 0},
        {"max_pixels": 0},
        {"delta": 0.0},
        {"delta": 2.0},
    ],
)
def test_settings_that_cannot_work(small: Small, wrong: dict[str, int | float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong.values())):g}"):
        EdgeConfig(bundle=small.bundle.path, listen=ANY_PORT, trust=small.trust, **wrong)

"""A plan whose picture format not everybody has: taken where both sides have it, else left out."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hybridge.devices import models as models_module
from hybridge.devices.models import DeviceModels, encode_stage, stage_names
from hybridge.devices.probe import probe
from hybridge.devices.profile import load_profile
from hybridge.edge.agent import Agent
from hybridge.edge.bench import DeviceBench
from hybridge.edge.config import EdgeConfig
from hybridge.edge.stage_times import StageTimes
from hybridge.edge.uplink import Uplink
from hybridge.shared.bundle import open_bundle
from hybridge.shared.codec.picture import PictureFormat
from hybridge.shared.deadline import Deadline, monotonic
from hybridge.shared.manifest import Manifest
from hybridge.shared.plan import Plan
from hybridge.shared.security import Address

from ..bundles import CLOUD, LOCAL, SPLIT, Small, picture, stage_times
from .clouds import FakeCloud, fake_cloud
from .conftest import ANY_PORT, connected, measured_copy, run_edge

JXL = Plan.cloud("jxl")


def as_jxl(manifest: Manifest) -> Manifest:
    """With JPEG XL in the place of raw pixels."""
    table = [
        msgspec.structs.replace(row, plan=str(JXL)) if row.parsed() == CLOUD else row
        for row in manifest.table
    ]
    return msgspec.structs.replace(manifest, table=tuple(table))


@pytest.fixture
def small_jxl(small: Small, tmp_path: Path) -> Small:
    bundle = open_bundle(small.rewrite(tmp_path, as_jxl), trust=small.trust)
    return replace(small, root=tmp_path, bundle=bundle, models=DeviceModels(bundle))


def agent_of(small: Small, uplink: Uplink) -> Agent:
    return Agent(
        small.bundle,
        bench=DeviceBench(small.models, clock=monotonic, workers=2),
        times=StageTimes(stage_times((LOCAL, SPLIT, JXL))),
        uplink=uplink,
        clock=monotonic,
    )


async def test_both_sides_have_it(small_jxl: Small, cloud: Address) -> None:
    async with connected(cloud) as uplink:
        agent = agent_of(small_jxl, uplink)
        answer = await agent.answer(picture(1), Deadline.after_ms(30_000, now_s=monotonic()))
        assert (answer.plan, answer.fallback) == (JXL, "")
        np.testing.assert_allclose(answer.probabilities, small_jxl.large(picture(1)), atol=1e-5)
        agent.close()


async def plans_with(small: Small, cloud: FakeCloud) -> set[Plan]:
    """What an edge of this cloud may take."""
    async with connected(cloud.address) as uplink:
        agent = agent_of(small, uplink)
        options = agent.options(Deadline.after_ms(30_000, now_s=monotonic()))
        agent.close()
        return {option.plan for option in options}


async def test_a_cloud_without_it(small_jxl: Small) -> None:
    async with fake_cloud(small_jxl.bundle) as cloud:
        assert await plans_with(small_jxl, cloud) == {LOCAL, SPLIT}
        cloud.picture_formats = ["jpeg", "png"]
        assert await plans_with(small_jxl, cloud) == {LOCAL, SPLIT}
        cloud.picture_formats = ["jpeg", "jxl"]
        assert await plans_with(small_jxl, cloud) == {LOCAL, SPLIT, JXL}


async def test_a_device_without_it(small_jxl: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    here = frozenset({PictureFormat.JPEG, PictureFormat.PNG})
    monkeypatch.setattr("hybridge.edge.agent.formats_here", lambda: here)
    async with fake_cloud(small_jxl.bundle) as cloud:
        cloud.picture_formats = ["jpeg", "jxl"]
        assert await plans_with(small_jxl, cloud) == {LOCAL, SPLIT}
    assert encode_stage(JXL) in stage_names(small_jxl.bundle.manifest)
    monkeypatch.setattr(models_module, "formats_here", lambda: here)
    assert encode_stage(JXL) not in stage_names(small_jxl.bundle.manifest)


async def test_a_device_that_has_it_now_measures_it(small_jxl: Small, tmp_path: Path) -> None:
    path = measured_copy(small_jxl, tmp_path / "again")  # knows how long raw pixels take

    def stages() -> set[str]:
        bundle = open_bundle(path, trust=small_jxl.trust)
        profile = load_profile(bundle.profiles, probe(), bundle_sha256=bundle.sha256)
        assert profile is not None
        return set(profile.stages)

    assert encode_stage(JXL) not in stages()
    async with run_edge(EdgeConfig(bundle=path, listen=ANY_PORT, trust=small_jxl.trust)):
        assert encode_stage(JXL) in stages()

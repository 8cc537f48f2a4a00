"""A real Ray cluster of several nodes on this machine, one of which dies in mid batch."""

import asyncio
import dataclasses
import importlib.util
import os
import sys
from pathlib import Path

import pytest

from hybridge.cloud.config import CloudConfig, Engine
from hybridge.cloud.executors.opening import executor_of
from hybridge.shared.errors import ConfigError
from hybridge.shared.signing import SigningKey

ROOT = Path(__file__).parents[3]
SCENARIO = "tests.cloud.executors.ray_scenario"
MOST_S = 280


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed"
)
@pytest.mark.timeout(MOST_S + 20)
async def test_from_nothing_to_an_answer_and_over_the_death_of_a_node(
    bundles: Path, key: SigningKey
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", SCENARIO, str(bundles), key.public_hex,
        cwd=ROOT,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        told, _ = await asyncio.wait_for(process.communicate(), MOST_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = told.decode().splitlines()
    assert process.returncode == 0, told.decode()[-4_000:]
    for step in ("answered from nothing", "answered over the death of a node", "let go"):
        assert step in lines


async def test_without_ray_it_is_said_what_to_install(
    config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "hybridge.cloud.executors.ray_actor", raising=False)
    with pytest.raises(ConfigError, match=r'pip install "hybridge\[cloud,ray\]"'):
        await executor_of(dataclasses.replace(config, engine=Engine.RAY, workers=2))

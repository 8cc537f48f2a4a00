"""From a model of several inputs and outputs to apps that ask it: compiler, cloud, edge, client."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import tritonclient.grpc as triton  # type: ignore[import-untyped]
from PIL import Image

from hybridge.cli.main import main
from hybridge.client import Client
from hybridge.cloud.config import CloudConfig
from hybridge.cloud.server import CloudServer
from hybridge.devices.probe import probe
from hybridge.devices.profile import Profile, save_profile
from hybridge.edge.config import EdgeConfig
from hybridge.edge.daemon import EdgeDaemon
from hybridge.edge.selftest import self_test
from hybridge.shared.bundle import open_bundle
from hybridge.shared.plan import PlanKind
from hybridge.shared.security import Address
from hybridge.shared.tensor import TensorSpec

from .bundles import Small, picture, stage_times
from .sided import FEATURES, NAME, SidedNet, build_sided, only

HERE = Address("127.0.0.1", 0)
LATER_MS = 30_000.0
Known = dict[str, npt.NDArray[np.generic]]


@pytest.fixture(scope="module")
def sided(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Small:
    assert pytestconfig.cache is not None
    return build_sided(tmp_path_factory.mktemp("sided"), cache=pytestconfig.cache.mkdir("bundle"))


def known(seed: int) -> Known:
    """What may come beside a picture."""
    rng = np.random.default_rng(seed)
    return {
        "patient": rng.normal(size=(1, 2)).astype(np.float32),
        "site": rng.integers(0, 4, 1),
    }


def expected(sided: Small, seed: int, beside: Known) -> tuple[npt.NDArray[np.float32], ...]:
    """Embedding and probabilities as torch itself computes them."""
    pixels = sided.models.resize_large(picture(seed)).astype(np.float32)
    spec = sided.bundle.manifest.large.preprocessing.spec
    normal = (pixels - np.float32(spec.mean)) / np.float32(spec.std)
    with torch.inference_mode():
        made = SidedNet().eval()(
            torch.from_numpy(normal.transpose(2, 0, 1)[None].copy()),
            *(torch.from_numpy(beside[name]) for name in ("patient", "site")),
        )
    return made["features"].numpy(), torch.softmax(made["logits"], -1).numpy()


def test_the_bundle_says_what_the_model_takes_and_gives(sided: Small) -> None:
    large = sided.bundle.manifest.large
    assert large.inputs == (TensorSpec("patient", "FP32", (2,)), TensorSpec("site", "INT64", ()))
    assert large.outputs == (TensorSpec("features", "FP32", (FEATURES,)),)
    assert large.cuts


def test_the_table_was_made_with_what_came_beside(sided: Small) -> None:
    rows = {row.parsed().kind: row for row in sided.bundle.manifest.table}
    assert set(rows) == set(PlanKind)
    beside_bytes = 2 * 4 + 8
    pixels_bytes = math.prod(sided.bundle.manifest.large.pixels.shape)
    assert rows[PlanKind.CLOUD].bytes_p50 > pixels_bytes + beside_bytes
    assert rows[PlanKind.SPLIT].bytes_p50 > beside_bytes
    assert rows[PlanKind.CLOUD].agreement.value == 1
    assert rows[PlanKind.SPLIT].agreement.value >= 0.75


def test_golden_inputs_hold_it_too(sided: Small) -> None:
    blob = sided.bundle.manifest.golden.blob
    with np.load(sided.bundle.file(blob), allow_pickle=False) as golden:
        assert golden["input:patient"].tolist() == [[-1, 0]]
        assert golden["input:site"].tolist() == [0]
    assert not [name for name in sided.bundle.manifest.golden.tolerance if "input" in name]
    self_test(sided.bundle)


@dataclass(frozen=True)
class Served:
    """Where a cloud listens, and an edge that knows no remote plan but one."""

    cloud: Address
    edge: Address
    plan: str


@asynccontextmanager
async def served(sided: Small, root: Path, kind: PlanKind) -> AsyncIterator[Served]:
    """Both in this process, once the edge has found the cloud to be quick."""
    path = sided.rewrite(root, only(PlanKind.LOCAL, kind))
    bundle = open_bundle(path, trust=sided.trust)
    plans = [row.parsed() for row in bundle.manifest.table]
    profile = Profile(device=probe(), bundle_sha256=bundle.sha256, stages=stage_times(plans))
    save_profile(profile, bundle.profiles)
    cloud = CloudServer(
        CloudConfig(bundles=root, trust=sided.trust, address=HERE, instances=1, preload=True)
    )
    try:
        await cloud.startup()
        edge = EdgeDaemon(
            EdgeConfig(bundle=path, listen=HERE, trust=sided.trust, cloud=cloud.address)
        )
        try:
            await edge.startup()
            assert edge._agent is not None
            assert edge._agent.uplink is not None
            await edge._agent.uplink.probe(0)
            await edge._agent.uplink.probe(24_000)
            yield Served(cloud.address, edge.address, str(plans[1]))
        finally:
            await edge.shutdown()
    finally:
        await cloud.shutdown()


@pytest.mark.parametrize(("kind", "error"), [(PlanKind.CLOUD, 1e-4), (PlanKind.SPLIT, 0.1)])
async def test_through_edge_and_cloud(
    sided: Small, tmp_path: Path, kind: PlanKind, error: float
) -> None:
    def ask(at: Served) -> None:
        moved = 0.0
        with Client(str(at.edge)) as client:
            for seed in range(3):
                beside = known(seed)
                embedding, probabilities = expected(sided, seed, beside)
                answer = client.infer(picture(seed), inputs=beside, budget_ms=LATER_MS)
                assert (answer.plan, answer.fallback) == (at.plan, "")
                np.testing.assert_allclose(answer.probabilities, probabilities[0], atol=error)
                far = np.abs(answer.outputs["features"] - embedding).max()
                assert far <= error * np.abs(embedding).max()
                other = client.infer(picture(seed), inputs=known(seed + 3), budget_ms=LATER_MS)
                moved = max(moved, np.abs(other.probabilities - answer.probabilities).max())
            assert moved > 2 * error
            alone = client.infer(picture(0), inputs=known(0), budget_ms=1)
            assert (alone.plan, alone.missing_outputs) == ("local", ("features",))

    async with served(sided, tmp_path, kind) as at:
        await asyncio.to_thread(ask, at)


async def test_with_tritonclient_and_the_command_line(
    sided: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = {"patient": np.array([[0.5, -1]], np.float32), "site": np.array([2])}
    embedding, probabilities = expected(sided, 5, beside)
    pixels = sided.models.resize_large(picture(5))
    file = tmp_path / "five.png"
    Image.fromarray(picture(5)).save(file)

    def triton_infer(address: Address, pixels: npt.NDArray[np.uint8]) -> None:
        inputs = []
        for name, datatype, array in (
            ("pixels", "UINT8", pixels),
            ("patient", "FP32", beside["patient"]),
            ("site", "INT64", beside["site"]),
        ):
            inputs.append(triton.InferInput(name, list(array.shape), datatype))
            inputs[-1].set_data_from_numpy(array)
        with triton.InferenceServerClient(str(address)) as client:
            result = client.infer(NAME, inputs)
            np.testing.assert_allclose(result.as_numpy("probabilities"), probabilities, atol=1e-4)
            np.testing.assert_allclose(result.as_numpy("features"), embedding, atol=1e-4)

    def ask(at: Served) -> None:
        triton_infer(at.cloud, pixels[None])
        triton_infer(at.edge, picture(5))
        arguments = ["infer", str(file), "--edge", str(at.edge), "--budget", str(LATER_MS)]
        given = ["--input", "patient=0.5,-1", "--input", "site=2", "--output", "features"]
        assert main([*arguments, *given, "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)["answers"]
        assert row["labels"][0] == f"class {probabilities.argmax()}"
        np.testing.assert_allclose(row["outputs"]["features"], embedding[0], atol=1e-4)
        assert main([*arguments, "--budget", "1", *given]) == 0
        assert "without features" in capsys.readouterr().out
        for wrong, said in (
            (["--input", "age=3"], "'age=3' is not NAME=VALUES of an input"),
            (["--input", "patient=1"], "takes 2 numbers, 1 were given"),
            (given[:2], "input 'site' is missing"),
        ):
            assert main([*arguments, *wrong]) == 65
            assert said in capsys.readouterr().err

    async with served(sided, tmp_path / "bundles", PlanKind.CLOUD) as at:
        await asyncio.to_thread(ask, at)

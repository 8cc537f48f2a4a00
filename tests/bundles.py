"""A small bundle that is real: every part made by the compiler from two tiny torch nets.

light, large:  float32 [1,16,16,3] -> conv -> relu -> conv -> relu -> mean -> linear -> logits [5]
heads, tails:  split:c01-2x2x12 and split:c02-12
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from PIL import Image
from torch import nn

from hybridge.cloud import compiler, torch_graph
from hybridge.cloud.compiler.build import build
from hybridge.cloud.compiler.cache import StepCache
from hybridge.cloud.compiler.cloud_side import CloudSide
from hybridge.cloud.compiler.golden import pack_arrays
from hybridge.cloud.compiler.recipe import ModelRecipe, PicturesRecipe, Recipe
from hybridge.cloud.compiler.writer import write_bundle
from hybridge.devices.models import LIGHT, RESIZE_LARGE, RESIZE_LIGHT, DeviceModels, Pixels
from hybridge.devices.profile import StageTime
from hybridge.edge.outlook import device_stages
from hybridge.shared.answer import Probabilities, to_probabilities
from hybridge.shared.bundle import Bundle, open_bundle
from hybridge.shared.manifest import Golden, Manifest, Rate
from hybridge.shared.plan import Plan, PlanKind
from hybridge.shared.preprocess import PreprocessSpec
from hybridge.shared.signing import SigningKey, TrustStore
from hybridge.shared.tensor import Array

NAME, SIZE_PX, CLASSES = "small", 16, 5
CUT = "c01-2x2x12"
LOCAL = Plan.local()
SPLIT = Plan.split(CUT, head="int8", codec="affine4")
CLOUD = Plan.cloud("raw")
AGREEMENT = {PlanKind.LOCAL: 0.6, PlanKind.SPLIT: 0.9, PlanKind.CLOUD: 1.0}
"""In place of what four pictures say, so that tests know which plan is the better one."""


class Net(nn.Module):
    def __init__(self, channels: int, *, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, stride=4, padding=1), nn.ReLU())
        self.widen = nn.Sequential(nn.Conv2d(channels, 12, 3, stride=2, padding=1), nn.ReLU())
        self.classify = nn.Linear(12, CLASSES)
        with torch.no_grad():
            self.classify.weight *= 20  # so that pictures differ in their answers

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classify(self.widen(self.stem(pictures)).mean((2, 3)))
        return logits


def light() -> nn.Module:
    return Net(4, seed=1).eval()


def large() -> nn.Module:
    return Net(8, seed=2).eval()


@dataclass(frozen=True)
class Small:
    """The bundle under ROOT/small/1, and whose it is."""

    root: Path
    key: SigningKey
    bundle: Bundle
    models: DeviceModels
    cloud: CloudSide

    @property
    def trust(self) -> TrustStore:
        return TrustStore(frozenset({self.key.public_hex}))

    def light(self, picture: Array) -> Probabilities:
        """What the device answers."""
        return self.models.light(self.models.resize_light(picture))

    def large(self, picture: Array, plan: Plan = CLOUD) -> Probabilities:
        """What a remote plan answers if it loses nothing on the way."""
        tensor = self.models.tensor(plan, self.models.resize_large(picture))
        output = self.cloud.run(plan.cut, tensor).astype(np.float32)
        return to_probabilities(output, self.bundle.manifest.large.output)

    def rewrite(self, root: Path, change: Callable[[Manifest], Manifest]) -> Path:
        """A signed copy under another root, with another manifest."""
        manifest = self.bundle.manifest
        blobs = {blob.sha256: self.bundle.read(blob) for blob in manifest.blobs()}
        return write_bundle(change(manifest), blobs, root=root, key=self.key)

    def with_golden(self, root: Path, arrays: dict[str, Array]) -> Path:
        """A signed copy that says its stages gave these arrays where it was built."""
        packed = pack_arrays(arrays)
        golden = self.bundle.manifest.golden
        blob = msgspec.structs.replace(
            golden.blob, sha256=hashlib.sha256(packed).hexdigest(), bytes=len(packed)
        )
        manifest = msgspec.structs.replace(
            self.bundle.manifest, golden=Golden(blob=blob, tolerance=golden.tolerance)
        )
        blobs = {each.sha256: self.bundle.read(each) for each in self.bundle.manifest.blobs()}
        return write_bundle(manifest, blobs | {blob.sha256: packed}, root=root, key=self.key)


def picture(seed: int, *, width: int = 40, height: int = 30) -> Pixels:
    """A smooth picture, uint8 RGB [height, width, 3]."""
    blots = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    smooth = Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.uint8)


def build_small(folder: Path, *, cache: Path) -> Small:
    """Builds the bundle; the slow conversions are taken from the cache where it has them."""
    key = SigningKey.load_or_create(folder / "keys" / "signing.key")
    built = build(
        small_recipe(folder), root=folder / "built", key=key,
        cache=StepCache(cache / compiler_version()),
        progress=lambda step, done, total: None,
    )  # fmt: skip
    trust = TrustStore(frozenset({key.public_hex}))
    measured = open_bundle(built, trust=trust)
    root = folder / "bundles"
    blobs = {blob.sha256: measured.read(blob) for blob in measured.manifest.blobs()}
    path = write_bundle(_with_known_table(measured.manifest), blobs, root=root, key=key)
    bundle = open_bundle(path, trust=trust)
    return Small(root, key, bundle, DeviceModels(bundle), CloudSide.open(bundle))


def stage_times(
    plans: Sequence[Plan], *, ms: float = 0.1, light_p999_ms: float = 100.0, slow: str = ""
) -> dict[str, StageTime]:
    """A profile in which every stage takes `ms`, and one named stage forever."""
    stages = {stage for plan in plans for stage in device_stages(plan)}
    times = {
        stage: StageTime(p50_ms=ms, p95_ms=ms, p999_ms=ms, runs=50)
        for stage in (*stages, RESIZE_LIGHT, LIGHT, RESIZE_LARGE)
        if stage != slow
    }
    times[LIGHT] = msgspec.structs.replace(times[LIGHT], p999_ms=light_p999_ms)
    return times


def small_recipe(folder: Path) -> Recipe:
    """What the small bundle is made of; its pictures are put into the folder."""
    for name, seeds in (("calibration", range(8)), ("evaluation", range(100, 104))):
        (folder / name).mkdir()
        for seed in seeds:
            Image.fromarray(picture(seed)).save(folder / name / f"{seed}.png")
    (folder / "labels.txt").write_text("\n".join(f"class {at}" for at in range(CLASSES)))
    spec = PreprocessSpec(size_px=SIZE_PX, crop_padding_px=2)
    return Recipe(
        name=NAME,
        labels=folder / "labels.txt",
        light=ModelRecipe(model=f"{__name__}:light", preprocessing=spec),
        large=ModelRecipe(model=f"{__name__}:large", preprocessing=spec),
        pictures=PicturesRecipe(
            calibration=folder / "calibration", evaluation=folder / "evaluation"
        ),
        default_budget_ms=5_000.0,
        picture_codecs=("raw", "jpeg-75"),
        tensor_codecs=("affine4", "layers-30"),
        max_cuts=2,
    )


def _with_known_table(manifest: Manifest) -> Manifest:
    wanted = (LOCAL, SPLIT, CLOUD)
    rows = {row.parsed(): row for row in manifest.table}
    table = tuple(
        msgspec.structs.replace(
            rows[plan],
            agreement=Rate(value=AGREEMENT[plan.kind], standard_error=0.01, samples=1000),
        )
        for plan in wanted
    )
    return msgspec.structs.replace(manifest, table=table)


def compiler_version() -> str:
    """Of the compiler and the operators it runs: others make everything anew."""
    digest = hashlib.sha256()
    for package in (compiler, torch_graph):
        for file in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]

"""A small bundle of a model that takes more than a picture and gives more than an answer.

picture [1,3,16,16] ─▶ conv ─▶ conv ─▶ mean ─▶ features [12] ─┬─▶ linear ─▶ logits [5]
patient [1,2], site [1] ─▶ embedding of 4 sites ────────────────┘
"""

from pathlib import Path

import msgspec
import torch
from PIL import Image
from torch import nn

from hybridge.cloud.compiler.build import build
from hybridge.cloud.compiler.cache import StepCache
from hybridge.cloud.compiler.cloud_side import CloudSide
from hybridge.cloud.compiler.recipe import ModelRecipe, PicturesRecipe, Recipe
from hybridge.devices.models import DeviceModels
from hybridge.shared.bundle import open_bundle
from hybridge.shared.manifest import Manifest
from hybridge.shared.plan import PlanKind
from hybridge.shared.preprocess import PreprocessSpec
from hybridge.shared.signing import SigningKey, TrustStore

from .bundles import CLASSES, SIZE_PX, Small, compiler_version, light, picture

NAME = "sided"
FEATURES = 12


class SidedNet(nn.Module):
    """Late fusion: what is known of the patient joins the picture's features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU())
        self.widen = nn.Sequential(nn.Conv2d(8, FEATURES, 3, stride=2, padding=1), nn.ReLU())
        self.sites = nn.Embedding(4, 3)
        self.classify = nn.Linear(FEATURES + 2 + 3, CLASSES)
        with torch.no_grad():
            self.classify.weight *= 10  # so that pictures and patients differ in their answers

    def forward(
        self, pictures: torch.Tensor, patient: torch.Tensor, site: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        features = self.widen(self.stem(pictures)).mean((2, 3))
        known = torch.cat([features, patient, self.sites(site)], 1)
        return {"features": features, "logits": self.classify(known)}


def large() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """The model, and inputs of their shapes and dtypes."""
    pictures = torch.zeros(1, 3, SIZE_PX, SIZE_PX)
    return SidedNet().eval(), (pictures, torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))


def build_sided(folder: Path, *, cache: Path) -> Small:
    """Builds the bundle; the slow conversions are taken from the cache where it has them."""
    key = SigningKey.load_or_create(folder / "keys" / "signing.key")
    trust = TrustStore(frozenset({key.public_hex}))
    built = build(
        sided_recipe(folder), root=folder / "bundles", key=key,
        cache=StepCache(cache / compiler_version()), progress=lambda step, done, total: None,
    )  # fmt: skip
    bundle = open_bundle(built, trust=trust)
    return Small(folder / "bundles", key, bundle, DeviceModels(bundle), CloudSide.open(bundle))


def only(*kinds: PlanKind) -> "Only":
    return Only(kinds)


class Only:
    """A manifest whose table has no other plans than these, the remote ones one each."""

    def __init__(self, kinds: tuple[PlanKind, ...]) -> None:
        self._kinds = kinds

    def __call__(self, manifest: Manifest) -> Manifest:
        first = {row.parsed().kind: row for row in reversed(manifest.table)}
        return msgspec.structs.replace(manifest, table=tuple(first[kind] for kind in self._kinds))


def sided_recipe(folder: Path) -> Recipe:
    """Of eight pictures to calibrate with and four to measure on, with what is beside each."""
    lines = ["file\tpatient\tsite"]
    for name, seeds in (("calibration", range(8)), ("evaluation", range(100, 104))):
        (folder / name).mkdir()
        for seed in seeds:
            Image.fromarray(picture(seed)).save(folder / name / f"{seed}.png")
            lines.append(f"{name}/{seed}.png\t{seed % 3 - 1} {seed % 2}\t{seed % 4}")
    (folder / "inputs.tsv").write_text("\n".join(lines))
    (folder / "labels.txt").write_text("\n".join(f"class {at}" for at in range(CLASSES)))
    spec = PreprocessSpec(size_px=SIZE_PX, crop_padding_px=2)
    return Recipe(
        name=NAME,
        labels=folder / "labels.txt",
        light=ModelRecipe(model=f"{light.__module__}:light", preprocessing=spec),
        large=ModelRecipe(model=f"{__name__}:large", preprocessing=spec),
        pictures=PicturesRecipe(
            calibration=folder / "calibration",
            evaluation=folder / "evaluation",
            inputs=folder / "inputs.tsv",
        ),
        default_budget_ms=5_000.0,
        picture_codecs=("raw",),
        tensor_codecs=("affine8",),
        max_cuts=2,
    )

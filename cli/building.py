"""Builds a bundle and measures it on this machine, for every command that needs one."""

from functools import partial
from pathlib import Path

from ..cloud.compiler.build import build
from ..cloud.compiler.cache import StepCache
from ..cloud.compiler.cloud_side import measure_cloud
from ..cloud.compiler.recipe import Recipe
from ..devices.conditions import Watch
from ..devices.models import DeviceModels, measure_stages
from ..devices.probe import probe
from ..devices.profile import Profile, StageTime, load_profile, save_profile, today
from ..devices.yardstick import measure_yardstick
from ..edge.selftest import golden_picture
from ..shared.bundle import Bundle, open_bundle
from ..shared.paths import Paths
from ..shared.signing import SigningKey, TrustStore
from .console import StepProgress


def build_recipe(
    recipe: Recipe, *, root: Path, progress: StepProgress, cache: StepCache | None = None
) -> Bundle:
    """The bundle of a recipe, signed with this machine's key, with its profile beside it."""
    paths = Paths.from_environment()
    key = SigningKey.load_or_create(paths.signing_key)
    cache = cache or StepCache(paths.build_cache)
    models: dict[str, StageTime] = {}
    path = build(recipe, root=root, key=key, cache=cache, progress=progress, on_times=models.update)
    bundle = open_bundle(path, trust=TrustStore(frozenset({key.public_hex})))
    device = probe()
    if load_profile(bundle.profiles, device, bundle_sha256=bundle.sha256) is None:
        picture, watch = golden_picture(bundle), Watch()
        stages = measure_stages(
            DeviceModels(bundle),
            picture,
            on_stage=lambda _, done, total: progress("timing every stage here", done, total),
        )
        timing = partial(progress, "timing the cloud's part here")
        stages |= models | measure_cloud(bundle, picture, count=timing)
        profile = Profile(
            device=device,
            bundle_sha256=bundle.sha256,
            stages=stages,
            conditions=watch.conditions(),
            yardstick_ms=measure_yardstick(),
            measured_on=today(),
        )
        save_profile(profile, bundle.profiles)
    return bundle

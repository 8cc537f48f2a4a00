from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from hybridge.cloud.compiler.cloud_side import measure_cloud
from hybridge.devices.probe import probe
from hybridge.devices.profile import Profile, save_profile
from hybridge.edge.config import EdgeConfig
from hybridge.edge.daemon import EdgeDaemon
from hybridge.shared.bundle import Bundle, open_bundle
from hybridge.shared.security import Address

from ..bundles import Small, picture, stage_times
from ..edge.conftest import PLANS
from ..threads import serving


@pytest.fixture
def home(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of Hybridge's whose own key signed the small bundle."""
    home = tmp_path / "home"
    (home / "keys").mkdir(parents=True)
    (home / "keys" / "signing.key").write_bytes(small.key.private.private_bytes_raw())
    monkeypatch.setenv("HYBRIDGE_HOME", str(home))
    return home


@pytest.fixture
def bundle(small: Small, home: Path) -> Bundle:
    """The small bundle in that home, with the profile of the machine that built it."""
    path = small.rewrite(home / "bundles", lambda manifest: manifest)
    bundle = open_bundle(path, trust=small.trust)
    stages = stage_times(PLANS) | measure_cloud(bundle, picture(0), runs=3)
    profile = Profile(device=probe(), bundle_sha256=bundle.sha256, stages=stages)
    save_profile(profile, bundle.profiles)
    return bundle


@pytest.fixture
def edge(small: Small, bundle: Bundle) -> Iterator[Address]:
    """An edge without a cloud."""
    config = EdgeConfig(bundle=bundle.path, listen=Address("127.0.0.1", 0), trust=small.trust)
    with serving(EdgeDaemon(config)) as address:
        yield address


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with three pictures, one of them deeper, and a file that is none."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.JPG", "more/c.webp")):
        Image.fromarray(picture(seed)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder

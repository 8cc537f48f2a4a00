from pathlib import Path

import pytest

from hybridge.shared.signing import SigningKey

from ..cloud.bundles import write_bundle


@pytest.fixture
def path(tmp_path: Path, key: SigningKey) -> Path:
    """The directory of the bundle tiny/1."""
    return write_bundle(tmp_path / "bundles", key=key)

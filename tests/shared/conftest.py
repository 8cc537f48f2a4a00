from pathlib import Path

import pytest

from hybridge.shared.signing import SigningKey, TrustStore

from ..cloud.bundles import write_bundle


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.load_or_create(tmp_path_factory.mktemp("keys") / "signing.key")


@pytest.fixture(scope="session")
def trust(key: SigningKey) -> TrustStore:
    return TrustStore(frozenset({key.public_hex}))


@pytest.fixture
def path(tmp_path: Path, key: SigningKey) -> Path:
    """The directory of the bundle tiny/1."""
    return write_bundle(tmp_path / "bundles", key=key)

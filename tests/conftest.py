from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from hybridge.shared.signing import SigningKey, TrustStore

if TYPE_CHECKING:
    from .bundles import Small

# How long an example takes says more of the machine than of the code.
settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Small:
    """A real bundle, built once. Nobody changes it; `rewrite` makes copies."""
    from .bundles import build_small  # torch: only who needs it pays for it

    assert pytestconfig.cache is not None
    return build_small(tmp_path_factory.mktemp("small"), cache=pytestconfig.cache.mkdir("bundle"))


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.load_or_create(tmp_path_factory.mktemp("keys") / "signing.key")


@pytest.fixture(scope="session")
def trust(key: SigningKey) -> TrustStore:
    return TrustStore(frozenset({key.public_hex}))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one: sums are added in the same order each time, and threads wait for no others."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def budgets_run_from_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is busy a request's way in may take more than the budget of a test."""
    monkeypatch.setattr("hybridge.client.client.tell", lambda now_s: "")

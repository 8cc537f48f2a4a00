from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .bundles import Small


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Small:
    """A real bundle, built once. Nobody changes it; `rewrite` makes copies."""
    from .bundles import build_small  # torch: only who needs it pays for it

    assert pytestconfig.cache is not None
    return build_small(tmp_path_factory.mktemp("small"), cache=pytestconfig.cache.mkdir("bundle"))

"""Files inside installed packages, without importing them (some need what we do not have)."""

import importlib.util
from pathlib import Path

from ...shared.errors import BuildError


def package_folder(package: str, *, brought_by: str = "scripts/install") -> Path:
    """Where a package lies; BuildError if it is not installed, with the command that brings it."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise BuildError(f"package {package} is not installed; {brought_by} brings it")
    return Path(found.origin).parent

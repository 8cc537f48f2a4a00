"""Where this machine keeps what Hybridge makes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The folders under one root, `$HYBRIDGE_HOME` or `~/.local/share/hybridge`."""

    root: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Paths":
        if home := environment.get("HYBRIDGE_HOME"):
            return cls(Path(home).expanduser())
        data = environment.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return cls(Path(data) / "hybridge")

    @property
    def bundles(self) -> Path:
        return self.root / "bundles"

    @property
    def signing_key(self) -> Path:
        return self.root / "keys" / "signing.key"

    @property
    def trusted(self) -> Path:
        return self.root / "trusted"

    @property
    def build_cache(self) -> Path:
        return self.root / "build"

    @property
    def distillations(self) -> Path:
        return self.root / "distill"

    @property
    def bottlenecks(self) -> Path:
        return self.root / "compress"

    @property
    def inversions(self) -> Path:
        return self.root / "privacy"

"""What one part of the serving benchmark found."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from _common import Target
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Targets and figures of a part; names say their units, samples are what medians are of."""

    targets: Sequence[Target]
    figures: Mapping[str, Any]
    samples: Mapping[str, Any] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    why_not: str = ""
    """Why targets are missing."""


@dataclass(frozen=True)
class Asked:
    """A figure that is asked of the cloud, by the beginning of its target's name."""

    name: str
    unit: str
    bound: float | None
    """None where a peer sets it."""

    def missing(self, why: str) -> Target:
        return Target.not_measured(self.name, unit=self.unit, bound=self.bound, why=why)


class Part(Protocol):
    """A module under benchmarks/serving that is one part of it."""

    @property
    def ASKED(self) -> Sequence[Asked]:
        """What its targets have to name, measured or not."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Its own options, named after the part."""

    def measure(self, options: argparse.Namespace) -> Findings:
        """Runs it; `options.quick` asks for fewer samples."""

"""Well-known boards: how much slower than the reference machine they are, and who says so.

Nobody has measured these boards with Hybridge. Each file holds published figures with their
sources, and what they are scaled by, where they were made with more threads or at another clock;
`reference.json` holds what the same benchmarks take on the reference machine. A factor is the
geometric mean of their ratios.
"""

from enum import StrEnum
from importlib import resources
from math import exp, log
from typing import Annotated

import msgspec

from ...shared.errors import ConfigError

_REFERENCE = "reference.json"


class Kind(StrEnum):
    """Work that one factor holds for."""

    INT8 = "int8"
    FLOAT = "float"
    RESIZE = "resize"
    ENCODE = "encode"


_LEAST_UNSURE = {Kind.INT8: 1.45, Kind.FLOAT: 1.4, Kind.RESIZE: 2.0, Kind.ENCODE: 2.0}
"""Held-out figures of nets were missed by up to the first (docs/devices.md). Nobody publishes times
of resizing and encoding; 7-zip, which stands in for them, uses no vector units."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Source(_Record, frozen=True):
    """Where a figure was published."""

    title: Annotated[str, msgspec.Meta(min_length=1)]
    url: Annotated[str, msgspec.Meta(pattern="^https://")]


class Scale(_Record, frozen=True):
    """A published figure is multiplied by `by` / `over`, and why."""

    by: Annotated[float, msgspec.Meta(gt=0)]
    over: Annotated[float, msgspec.Meta(gt=0)]
    why: str


class Evidence(_Record, frozen=True):
    """One published figure; its unit is the end of the benchmark's name."""

    kinds: Annotated[tuple[Kind, ...], msgspec.Meta(min_length=1)]
    benchmark: str
    published: Annotated[float, msgspec.Meta(gt=0)]
    source: str
    scaled: tuple[Scale, ...] = ()

    @property
    def here(self) -> float:
        """The figure on one thread of the board."""
        value = self.published
        for scale in self.scaled:
            value *= scale.by / scale.over
        return value


class Reference(_Record, frozen=True):
    """The reference machine: its own figures of the benchmarks, on one thread, measured."""

    processor: str
    runtime: str
    measured_on: str
    benchmarks: dict[str, float]
    yardstick_ms: dict[str, float]


class Board(_Record, frozen=True):
    """A board and what was published of it."""

    name: str
    title: str
    processor: str
    architecture: str
    cores: int
    memory_bytes: int
    features: tuple[str, ...]
    sources: dict[str, Source]
    evidence: tuple[Evidence, ...]

    def ratios(self, kind: Kind) -> dict[str, float]:
        """How many times the reference machine's time each piece of evidence gives, by source."""
        reference = read_reference().benchmarks
        return {
            f"{each.benchmark} ({each.source})": _ratio(each, reference[each.benchmark])
            for each in self.evidence
            if kind in each.kinds
        }

    def factor(self, kind: Kind) -> float:
        """How many times the reference machine's time such work takes here."""
        ratios = self.ratios(kind).values()
        return exp(sum(map(log, ratios)) / len(ratios))

    def unsure(self, kind: Kind) -> float:
        """By what factor the truth may well be worse: as far as the evidence disagrees at least."""
        return max(_LEAST_UNSURE[kind], max(self.ratios(kind).values()) / self.factor(kind))


def board_names() -> tuple[str, ...]:
    """Every board there is."""
    files = resources.files(__package__).iterdir()
    names = (file.name for file in files if file.name.endswith(".json"))
    return tuple(sorted(name.removesuffix(".json") for name in names if name != _REFERENCE))


def read_board(name: str) -> Board:
    """The board of that name; ConfigError if there is none."""
    if name not in board_names():
        known = ", ".join(board_names())
        raise ConfigError(f"no board {name!r} is known (there: {known})")
    return msgspec.json.decode(read_data(f"{name}.json"), type=Board)


def read_reference() -> Reference:
    """The reference machine."""
    return msgspec.json.decode(read_data(_REFERENCE), type=Reference)


def read_data(name: str) -> bytes:
    """A file of this package."""
    return resources.files(__package__).joinpath(name).read_bytes()


def _ratio(evidence: Evidence, reference: float) -> float:
    if evidence.benchmark.endswith("_ms"):
        return evidence.here / reference
    return reference / evidence.here  # a rate: more is quicker

"""What became of one request, as the load generator saw it; and of one cell of the matrix."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hybridge.shared.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Record:
    """One request. Times in s are of the system's monotonic clock.

    `round_trip_ms` runs from when it should have been sent, so that a late sender hides nothing.
    `predicted` is the position of the most probable class, None where no answer came. `promised`
    says that a final answer was to follow, `finals` how many did. `layers` of `layers_in_all` of
    its frame were there when the cloud answered, where it came in layers.
    """

    index: int
    picture: str
    budget_ms: float
    scheduled_s: float
    sent_s: float
    answered_s: float
    round_trip_ms: float
    predicted: int | None = None
    confidence: float = 0.0
    plan: str = ""
    provisional: bool = False
    fallback: str = ""
    sent_bytes: int = 0
    agent_ms: float = 0.0
    steps_ms: dict[str, float] = field(default_factory=dict)
    error: str = ""
    request_id: str = ""
    promised: bool = False
    finals: int = 0
    layers: int = 0
    layers_in_all: int = 0

    @property
    def answered(self) -> bool:
        return self.predicted is not None

    @property
    def in_budget(self) -> bool:
        return self.answered and self.round_trip_ms <= self.budget_ms


def write_records(file: Path, records: Iterable[Record]) -> None:
    """One JSON object a line."""
    file.write_text("".join(json.dumps(asdict(record)) + "\n" for record in records))


def read_records(file: Path) -> list[Record]:
    with file.open() as lines:
        return [Record(**json.loads(line)) for line in lines]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: everything that is the same for its requests.

    Cells that differ in their policy alone meet the same link at the same instants, and the same
    pictures at the same times.
    """

    pair: str
    link: str
    budget_ms: float
    policy: str
    requests: int
    rate_hz: float
    seed: int = 0
    offset_s: float = 0.0

    @property
    def name(self) -> str:
        """As a file may be called; two cells never share one."""
        parts = (
            self.pair, self.link, f"{self.budget_ms:g}ms", self.policy, f"{self.requests}x",
            f"{self.rate_hz:g}hz", f"seed{self.seed}", f"from{self.offset_s:g}s",
        )  # fmt: skip
        return "_".join(part.replace("/", "~").replace("_", "~") for part in parts)


@dataclass(frozen=True, slots=True)
class Measured:
    """A cell with its records, and how the laboratory fared meanwhile."""

    cell: Cell
    records: Sequence[Record]
    circumstances: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Whole or not at all."""
        file = folder / f"{self.cell.name}.json"
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(asdict(self)))
        unfinished.rename(file)

    @classmethod
    def load(cls, folder: Path, cell: Cell) -> "Measured | None":
        """What an earlier run left of a cell; None if nothing, ConfigError if it cannot be read."""
        file = folder / f"{cell.name}.json"
        return cls.read(file) if file.exists() else None

    @classmethod
    def read(cls, file: Path) -> "Measured":
        """A finished cell; ConfigError if it cannot be read."""
        try:
            held = json.loads(file.read_text())
            records = tuple(Record(**record) for record in held["records"])
            return cls(Cell(**held["cell"]), records, held["circumstances"])
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{file} is no cell of this version; remove it: {error}") from error

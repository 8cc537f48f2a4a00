"""A pickle that does something when it is loaded, harmless as it is: it makes a file."""

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Harmful:
    file: Path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def harm_done(harmful: Harmful) -> bool:
    return harmful.file.exists()

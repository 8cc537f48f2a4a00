"""The class of each picture, from a table that the recipe names.

    file          class_index
    cats/1.png    3
    dogs/1.png    5

Columns are separated by a tab, the first line may be a header. FILE is a path, of which a picture
may have more in front: `1.png` is the picture of that name, wherever it lies.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...shared.errors import BuildError
from .files import unreadable

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


@dataclass(frozen=True, slots=True)
class Label:
    """A class, and the line that says so."""

    index: int
    line: int


def read_labels(file: Path, *, classes: int) -> dict[str, Label]:
    """By what the file calls a picture; BuildError names the line that is wrong."""
    known: dict[str, Label] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise unreadable(file, error) from error
    except UnicodeDecodeError as error:
        raise BuildError(f"{file} is no UTF-8 text ({error.reason})") from error
    for number, line in enumerate(lines, start=1):
        name, tab, index = line.partition("\t")
        is_picture = Path(name).suffix.lower() in PICTURE_SUFFIXES
        if number == 1 and not is_picture and index.strip() and not index.strip().isdecimal():
            continue  # a header
        if not tab or not index.strip().isdecimal():
            raise BuildError(f"{file}:{number}: expected FILE <tab> CLASS INDEX, got {line!r}")
        if int(index) >= classes:
            raise BuildError(
                f"{file}:{number}: class {index} of a model with {classes} classes, which count "
                "from 0"
            )
        label = known.setdefault(name, Label(int(index), number))
        if label.index != int(index):
            raise BuildError(f"{file}:{number}: {name} was of class {label.index} before; keep one")
    return known


def labels_of(
    pictures: Sequence[Path], known: Mapping[str, Label], *, file: Path
) -> tuple[int | None, ...]:
    """The class of each, None where it has none; BuildError where one line would mean several."""
    found: list[int | None] = []
    meant: dict[str, Path] = {}
    for picture in pictures:
        name = called(picture, known)
        if name is None:
            found.append(None)
            continue
        if (other := meant.setdefault(name, picture)) != picture:
            raise BuildError(
                f"{file}:{known[name].line}: {name!r} may be {other} or {picture}; write as "
                "much of their paths as tells them apart"
            )
        found.append(known[name].index)
    return tuple(found)


def called(picture: Path, names: Container[str]) -> str | None:
    """The longest end of a picture's path that is one of the names."""
    parts = picture.parts
    ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
    return next((end for end in (picture.as_posix(), *ends) if end in names), None)

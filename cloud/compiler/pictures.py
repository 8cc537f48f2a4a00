"""The pictures a build calibrates with and measures on."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...shared.errors import BuildError, PictureError
from ...shared.picture import decode_picture

Pixels = npt.NDArray[np.uint8]

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_VIEW_SHARE = 0.875


@dataclass(frozen=True, kw_only=True)
class SideLine:
    """What a table says of one picture, not yet understood."""

    file: Path
    number: int
    columns: tuple[str, ...]
    cells: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


@dataclass(frozen=True)
class PictureSet:
    """Picture files in a stable order, with the class index of each where it is known.

    `beside` says what comes beside each, where the recipe names a table of that.
    """

    files: tuple[Path, ...]
    labels: tuple[int | None, ...]
    sha256: str
    beside: tuple[SideLine, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Pixels]:
        for file in self.files:
            yield read_picture(file)


def open_pictures(folder: Path, *, labels: Path | None, classes: int, minimum: int) -> PictureSet:
    """All pictures below a folder; BuildError if there are too few or the labels do not fit."""
    if not folder.is_dir():
        raise BuildError(f"no folder of pictures at {folder}")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)
    if len(files) < minimum:
        raise BuildError(
            f"{folder} holds {len(files)} pictures, at least {minimum} are needed; add more like "
            "those to come"
        )
    known = _read_labels(labels, classes) if labels else {}
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    indices = tuple(known.get(file.name) for file in files)
    digest.update(repr(indices).encode())
    return PictureSet(tuple(files), indices, digest.hexdigest())


def read_picture(file: Path) -> Pixels:
    """One picture, uint8 RGB [h, w, 3]; BuildError names the file if it cannot be read."""
    try:
        return decode_picture(file.read_bytes())
    except OSError as error:
        raise BuildError(f"cannot read {file}: {error.strerror}") from error
    except PictureError as error:
        raise BuildError(f"{file}: {error}") from error


def views(picture: Pixels, count: int) -> list[Pixels]:
    """The picture itself, then crops of 7/8 of its sides at its corners, mirrored in turn."""
    height, width = picture.shape[:2]
    h, w = max(1, int(height * _VIEW_SHARE)), max(1, int(width * _VIEW_SHARE))
    corners = [(0, 0), (height - h, width - w), (0, width - w), (height - h, 0)]
    made = [picture]
    for number in range(count - 1):
        top, left = corners[number % len(corners)]
        crop = picture[top : top + h, left : left + w]
        mirrored = (number + number // len(corners)) % 2 == 0
        made.append(crop[:, ::-1] if mirrored else crop)
    return [view.copy() for view in made]


def _read_labels(file: Path, classes: int) -> dict[str, int]:
    known: dict[str, int] = {}
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise BuildError(f"cannot read {file}: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        name, tab, index = line.partition("\t")
        is_picture = Path(name).suffix.lower() in _SUFFIXES
        if number == 1 and not is_picture and index.strip() and not index.strip().isdecimal():
            continue  # a header
        if not tab or not index.strip().isdecimal():
            raise BuildError(f"{file}:{number}: expected FILE <tab> CLASS INDEX, got {line!r}")
        if int(index) >= classes:
            raise BuildError(f"{file}:{number}: class {index} of a model with {classes} classes")
        if known.setdefault(name, int(index)) != int(index):
            raise BuildError(f"{file}:{number}: {name} was of class {known[name]} before; keep one")
    return known

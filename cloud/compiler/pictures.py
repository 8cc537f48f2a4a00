"""The pictures a build calibrates with and measures on."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...shared.errors import BuildError, PictureError
from ...shared.picture import decode_picture
from .files import unreadable
from .labels import PICTURE_SUFFIXES, labels_of, read_labels

Pixels = npt.NDArray[np.uint8]

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

    @property
    def labelled(self) -> int:
        """How many have a class."""
        return sum(label is not None for label in self.labels)

    def __iter__(self) -> Iterator[Pixels]:
        for file in self.files:
            yield read_picture(file)


def open_pictures(folder: Path, *, labels: Path | None, classes: int, minimum: int) -> PictureSet:
    """All pictures below a folder; BuildError if there are too few or the labels do not fit."""
    if not folder.is_dir():
        raise BuildError(f"no folder of pictures at {folder.absolute()}; check its path")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES)
    if len(files) < minimum:
        raise BuildError(
            f"{folder} holds {len(files)} pictures, at least {minimum} are needed; add more like "
            "those to come"
        )
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    indices: tuple[int | None, ...] = (None,) * len(files)
    if labels is not None:
        indices = labels_of(files, read_labels(labels, classes=classes), file=labels)
    digest.update(repr(indices).encode())
    return PictureSet(tuple(files), indices, digest.hexdigest())


def read_picture(file: Path) -> Pixels:
    """One picture, uint8 RGB [h, w, 3]; BuildError names the file if it cannot be read."""
    try:
        return decode_picture(file.read_bytes())
    except OSError as error:
        raise unreadable(file, error) from error
    except PictureError as error:
        raise BuildError(f"{file}: {error}; replace or remove it") from error


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

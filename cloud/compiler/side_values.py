"""What comes beside each picture of a build, from a table that the recipe names.

    file           patient   scanner
    mri/a.png      63 1      0.5 0.25 0.25
    mri/b.png      48 0      1 0 0

Columns are separated by tabs and named after the model's inputs; the numbers of a cell stand one
after the other, as the tensor lies in memory. FILE is a path, of which a picture may have more in
front: `a.png` is any picture of that name. One table serves calibration and evaluation.

It is read before any model is; its columns are understood once the model says what it takes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...shared.errors import BuildError, TensorError
from ...shared.side import Tensors, from_text
from ...shared.tensor import TensorSpec
from .files import unreadable
from .labels import called
from .pictures import PictureSet, SideLine


def with_table(sets: Sequence[PictureSet], file: Path | None) -> list[PictureSet]:
    """The pictures with their lines of a table.

    BuildError unless each line belongs to a picture of one of the sets, and each has a line.
    """
    if file is None:
        return list(sets)
    lines = _read(file)
    used: set[str] = set()
    made = [_with_lines(pictures, lines, file=file, used=used) for pictures in sets]
    for key, line in lines.items():
        if key not in used:
            raise BuildError(f"{line}: no picture {key!r} among those of the recipe")
    return made


def side_values(pictures: PictureSet, specs: Sequence[TensorSpec]) -> list[Tensors]:
    """What comes beside each picture, [1, ...] by name; BuildError where the table does not fit."""
    takes = ", ".join(map(str, specs))
    if not pictures.beside:
        if specs:
            raise BuildError(
                f"the large model takes {takes} beside a picture; name a table of them in the "
                'recipe: [pictures] inputs = "FILE"'
            )
        return [{} for _ in pictures.files]
    header = pictures.beside[0]
    if not specs:
        raise BuildError(f"{header.file}: the large model takes nothing beside a picture")
    by_name = {spec.name: spec for spec in specs}
    for name in header.columns:
        if name not in by_name:
            raise BuildError(
                f"{header.file}:1: {name!r} is no input of the large model; it takes {takes}"
            )
    if sorted(header.columns) != sorted(by_name):
        wanted, got = ("<tab>".join(["file", *names]) for names in (by_name, header.columns))
        raise BuildError(f"{header.file}:1: expected {wanted}, got {got}")
    return [_values(line, by_name) for line in pictures.beside]


def _values(line: SideLine, specs: dict[str, TensorSpec]) -> Tensors:
    try:
        return {
            name: from_text(cell, specs[name])[None]
            for name, cell in zip(line.columns, line.cells, strict=True)
        }
    except TensorError as error:
        raise BuildError(f"{line}: {error}") from error


def _read(file: Path) -> dict[str, SideLine]:
    """The lines by what they call their picture."""
    try:
        header, *rows = (line.split("\t") for line in (file.read_text() or "\n").splitlines())
    except OSError as error:
        raise unreadable(file, error) from error
    except UnicodeDecodeError as error:
        raise BuildError(f"{file} is no text ({error.reason})") from error
    columns = tuple(name.strip() for name in header[1:])
    if not columns:
        raise BuildError(f"{file}:1: expected file<tab>NAME..., with the names of the inputs")
    lines: dict[str, SideLine] = {}
    for number, (key, *cells) in enumerate(rows, start=2):
        line = SideLine(file=file, number=number, columns=columns, cells=tuple(cells))
        if not key and not cells:
            continue
        if len(cells) != len(columns):
            raise BuildError(f"{line}: {len(cells) + 1} columns, line 1 has {len(header)}")
        if key in lines:
            raise BuildError(f"{line}: {key!r} again, after line {lines[key].number}")
        lines[key] = line
    return lines


def _with_lines(
    pictures: PictureSet, lines: dict[str, SideLine], *, file: Path, used: set[str]
) -> PictureSet:
    digest = hashlib.sha256(pictures.sha256.encode())
    beside: list[SideLine] = []
    for picture in pictures.files:
        key = called(picture, lines)
        if key is None:
            raise BuildError(f"{file} has no line for the picture {picture}")
        used.add(key)
        beside.append(lines[key])
        digest.update(repr((lines[key].columns, lines[key].cells)).encode())
    return replace(pictures, beside=tuple(beside), sha256=digest.hexdigest())

"""What is wrong with labels and pictures, said before minutes are spent on models."""

import hashlib
import statistics
from collections.abc import Sequence
from pathlib import Path

from ...shared.errors import BuildError
from .files import unreadable
from .labels import called, read_labels
from .pictures import PictureSet, Pixels, read_picture
from .progress import Count, counted, uncounted

_SMALLEST_PX = 8
_SAME_KIND = 4.0
_NAMED = 3


def read_class_names(file: Path) -> tuple[str, ...]:
    """One class a line, in the order of the models' outputs; BuildError unless each has a name."""
    try:
        names = tuple(file.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise unreadable(file, error) from error
    except UnicodeDecodeError as error:
        raise BuildError(f"labels {file} is no UTF-8 text ({error.reason})") from error
    if len(names) < 2:
        raise BuildError(f"labels {file} names {len(names)} classes; write one class a line")
    for number, name in enumerate(names, start=1):
        if not name.strip():
            raise BuildError(f"{file}:{number}: an empty line where a class should be")
    return names


def check_pictures(
    calibration: PictureSet, evaluation: PictureSet, *, count: Count = uncounted
) -> None:
    """BuildError unless every picture can be read, and none that calibrates is also measured on.

    A model is never surprised by the pictures it was calibrated with: measured on them, the table
    would promise too much. Copies are found by their pixels, whatever the files are called.
    """
    seen: dict[bytes, Path] = {}
    sides: dict[str, list[int]] = {"calibration": [], "evaluation": []}
    twins: list[tuple[Path, Path]] = []
    files = (*calibration.files, *evaluation.files)
    for done, file in enumerate(counted(files, count)):
        pixels = read_picture(file)
        side = min(pixels.shape[:2])
        if side < _SMALLEST_PX:
            raise BuildError(
                f"{file} has {pixels.shape[1]}x{pixels.shape[0]} px, at least {_SMALLEST_PX} are "
                "needed; take pictures like those to come"
            )
        sides["calibration" if done < len(calibration) else "evaluation"].append(side)
        digest = _digest(pixels)
        if done < len(calibration):
            seen[digest] = file
        elif digest in seen:
            twins.append((file, seen[digest]))
    _refuse_twins(twins)
    _refuse_other_kind(**{name: statistics.median(found) for name, found in sides.items()})


def check_labelled(
    labels: Path | None, *, classes: int, evaluation: PictureSet, others: Sequence[PictureSet]
) -> None:
    """BuildError unless a labels file is about pictures that are there, some measured on."""
    if labels is None:
        return
    if evaluation.labelled == 0:
        raise BuildError(
            f"{labels} names none of the evaluation pictures, such as "
            f"{evaluation.files[0].name!r}; its first column must hold their file names"
        )
    known = read_labels(labels, classes=classes)
    used = {called(file, known) for pictures in (evaluation, *others) for file in pictures.files}
    unused = [f"{name!r} (line {label.line})" for name, label in known.items() if name not in used]
    if unused:
        raise BuildError(
            f"{labels} names {len(unused)} of {len(known)} pictures that are in none of the "
            f"recipe's folders: {_some(unused)}; add the pictures, or remove their lines"
        )


def _digest(pixels: Pixels) -> bytes:
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()


def _some(named: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(named[:_NAMED]) + more


def _refuse_twins(twins: list[tuple[Path, Path]]) -> None:
    if not twins:
        return
    named = _some([f"{measured} is {seen}" for measured, seen in twins])
    raise BuildError(
        f"{len(twins)} pictures both calibrate and are measured on: {named}; "
        "the table would promise too much; leave each in one folder only"
    )


def _refuse_other_kind(*, calibration: float, evaluation: float) -> None:
    """Pictures blown up from thumbnails have other values than those a camera makes."""
    if max(calibration, evaluation) > _SAME_KIND * min(calibration, evaluation):
        raise BuildError(
            f"calibration pictures have {calibration:.0f} px on their shorter side, those measured "
            f"on {evaluation:.0f}; both must be of the size of those to come"
        )

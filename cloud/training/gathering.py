"""What every training needs first: the pictures as a net sees them, and the teacher's answers."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...shared.errors import BuildError
from ...shared.manifest import OutputKind
from ...shared.preprocess import PreprocessSpec
from ..compiler.litert import Runner
from ..compiler.pictures import PictureSet
from ..compiler.progress import Progress
from .lessons import Lessons, as_logits, output_kind_of, split
from .rows import RowFile
from .teacher import Teacher
from .views import PictureView, all_views


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Whose answers to which pictures are learned; `folder` keeps what has been done.

    `evaluation`, with labels where they are known, is only ever measured on.
    """

    teacher: Teacher
    teacher_name: str
    pictures: PictureSet
    evaluation: PictureSet | None
    folder: Path

    def refuse_measured(self) -> None:
        """BuildError if a picture is both learned from and measured on: too much is promised then.

        Copies are found by their content, wherever they lie.
        """
        if self.evaluation is None:
            return
        learned = {view.key: view.file for view in all_views(self.pictures.files, 1)}
        twins = [view for view in all_views(self.evaluation.files, 1) if view.key in learned]
        if twins:
            raise BuildError(
                f"{len(twins)} evaluation pictures are among those to learn from, such as "
                f"{twins[0].file} ({learned[twins[0].key]}); leave each in one folder only"
            )

    def lessons(
        self, spec: PreprocessSpec, *, views: int, held_out: float, progress: Progress
    ) -> tuple[Lessons, OutputKind]:
        """Every view as a net of this preprocessing sees it, with the teacher's answer to it."""
        files = self.pictures.files
        shown = all_views(files, views)
        # Too few pictures are said before the teacher has worked for hours.
        keys = [view.key for view in shown]
        learned, held = split(keys[: len(files)], held_out=held_out)
        outputs = self.teacher.answer(shown, self.teacher.store(self.folder), progress=progress)
        kind = output_kind_of(outputs)
        resize = self.resizer(spec)

        def make(start: int, stop: int) -> npt.NDArray[Any]:
            return np.stack([resized(view, resize) for view in shown[start:stop]])

        side = spec.size_px
        name = key_of([asdict(spec), hashlib.sha256(b"".join(keys)).hexdigest()])
        rows = RowFile(self.folder / f"pixels-{name}", (side, side, 3), np.uint8, len(shown))
        pixels = rows.filled(
            make,
            on_rows=lambda done, total: progress("pictures as the net sees them", done, total),
        )
        return Lessons(pixels, as_logits(outputs, kind), learned, held, spec), kind

    def resizer(self, spec: PreprocessSpec) -> Runner:
        """From a picture to the pixels of a preprocessing."""
        return Runner(self.teacher.steps.preprocess(spec), signature="resize")


def resized(view: PictureView, resize: Runner) -> npt.NDArray[np.uint8]:
    """A view's pixels, uint8 [s, s, 3]."""
    pixels: npt.NDArray[np.uint8] = resize.run(view.pixels()[None])[0]
    return pixels


def key_of(value: object) -> str:
    """The same name for the same JSON."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]

"""Pictures as teacher and student both see them: whole, or one of a few fixed crops and mirrorings.

Beyer et al., "Knowledge distillation: a good teacher is patient and consistent" (CVPR 2022): the
teacher must be asked about the very view that the student learns from. Views are fixed, not drawn
anew each time, so that the teacher is asked once and its answers can be kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...shared.errors import BuildError
from ..compiler.files import unreadable
from ..compiler.pictures import Pixels, read_picture, views
from .answers import picture_key

MOST_VIEWS = 16


@dataclass(frozen=True)
class PictureView:
    """One view of a picture file; view 0 is the picture itself."""

    file: Path
    view: int = 0

    @cached_property
    def key(self) -> bytes:
        """The same for the same view of the same content; BuildError if the file is unreadable."""
        try:
            return picture_key(self.file.read_bytes(), view=self.view)
        except OSError as error:
            raise unreadable(self.file, error) from error

    @property
    def name(self) -> str:
        return str(self.file) if self.view == 0 else f"{self.file}, view {self.view}"

    def pixels(self) -> Pixels:
        """uint8 RGB [h, w, 3] of the view's own size."""
        picture = read_picture(self.file)
        return picture if self.view == 0 else views(picture, self.view + 1)[self.view]


def all_views(files: Sequence[Path], count: int) -> list[PictureView]:
    """View 0 of every file, then view 1 of every file, and so on."""
    if not 1 <= count <= MOST_VIEWS:
        raise BuildError(f"{count} views: 1 to {MOST_VIEWS} are possible")
    return [PictureView(file, view) for view in range(count) for file in files]

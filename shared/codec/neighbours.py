"""Passes over a picture's pixels such that later ones know what lies around them.

    A C A C     A first, with nothing known; then B, which knows four As around it; then the Cs,
    C B C B     which know an A or a B on every side (the order of interlaced pictures, and of
    A C A C     the checkerboard contexts of He et al., arXiv 2103.15306)

Each pass is one array operation. Outside the picture all symbols are zero.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

I16 = npt.NDArray[np.int16]

_DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))
_DIRECT = ((-1, 0), (0, -1), (0, 1), (1, 0))


@dataclass(frozen=True, slots=True)
class Pass:
    """The pixels from (`row`, `column`) on, every second of both; `around` are those known."""

    row: int
    column: int
    kind: int
    around: tuple[tuple[int, int], ...] = ()


PASSES = (
    Pass(0, 0, 0),
    Pass(1, 1, 1, _DIAGONAL),
    Pass(0, 1, 2, _DIRECT),
    Pass(1, 0, 2, _DIRECT),
)


class Plane:
    """Symbols [h, w, c] with a border of zeros."""

    def __init__(self, height: int, width: int, channels: int) -> None:
        self._height, self._width = height, width
        self._padded: I16 = np.zeros((height + 2, width + 2, channels), np.int16)

    @property
    def symbols(self) -> I16:
        return self._padded[1:-1, 1:-1]

    def passes(self) -> Iterator[Pass]:
        """Those that have pixels here."""
        return (each for each in PASSES if each.row < self._height and each.column < self._width)

    def of(self, each: Pass) -> I16:
        """A view of the pass's own symbols."""
        return self.symbols[each.row :: 2, each.column :: 2]

    def sums(self, each: Pass) -> I16:
        """The sums of the known neighbours' symbols."""
        rows, columns, _ = self.of(each).shape
        total = np.zeros(self.of(each).shape, np.int16)
        for down, right in each.around:
            row, column = each.row + 1 + down, each.column + 1 + right
            total += self._padded[row : row + 2 * rows : 2, column : column + 2 * columns : 2][
                :rows, :columns
            ]
        return total

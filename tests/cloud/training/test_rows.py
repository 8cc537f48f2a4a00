from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hybridge.cloud.training.rows import RowFile
from hybridge.shared.errors import BuildError


class Killed(Exception):
    """In place of a signal, at a known moment."""


class Maker:
    """Rows that hold their number; dies at one of them."""

    def __init__(self, *, dies_at: int = -1) -> None:
        self.made: list[int] = []
        self._dies_at = dies_at

    def __call__(self, start: int, stop: int) -> npt.NDArray[Any]:
        if start <= self._dies_at < stop:
            raise Killed
        self.made += range(start, stop)
        return np.arange(start, stop)[:, None].repeat(2, axis=1)


def rows(folder: Path, count: int = 10) -> RowFile:
    return RowFile(folder / "sub" / "rows", (2,), np.int16, count)


def test_rows_are_made_once(tmp_path: Path) -> None:
    first, again = Maker(), Maker()
    found = rows(tmp_path).filled(first, chunk=3)
    assert found[:, 1].tolist() == list(range(10))
    assert rows(tmp_path).filled(again, chunk=3).tolist() == found.tolist()
    assert again.made == []


def test_a_fill_that_died_carries_on(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        rows(tmp_path).filled(Maker(dies_at=7), chunk=3)
    with rows(tmp_path).file.open("ab") as stream:
        stream.write(b"abc")  # half of the next row
    again = Maker()
    assert rows(tmp_path).filled(again, chunk=3)[:, 0].tolist() == list(range(10))
    assert again.made == [6, 7, 8, 9]


def test_progress_is_told_before_each_chunk(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    rows(tmp_path).filled(Maker(), chunk=4, on_rows=lambda done, total: told.append((done, total)))
    assert told == [(0, 10), (4, 10), (8, 10)]


def test_a_disk_that_is_too_small_is_told_before_the_work(tmp_path: Path) -> None:
    maker = Maker()
    with pytest.raises(BuildError, match=r" [MGT]iB free and \S+ TiB are needed; make room"):
        rows(tmp_path, count=10**15).filled(maker)
    assert maker.made == []


def test_rows_cannot_be_changed(tmp_path: Path) -> None:
    found = rows(tmp_path).filled(Maker())
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1

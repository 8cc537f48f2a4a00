import re
from pathlib import Path

import pytest

from hybridge.cloud.compiler.labels import called, labels_of, read_labels
from hybridge.shared.errors import BuildError


def read(folder: Path, rows: str) -> dict[str, tuple[int, int]]:
    file = folder / "labels.tsv"
    file.write_text(rows)
    return {name: (each.index, each.line) for name, each in read_labels(file, classes=5).items()}


@pytest.mark.parametrize("header", ["", "file\tclass_index\n"])
def test_a_header_may_stand_before(tmp_path: Path, header: str) -> None:
    first = 1 + bool(header)
    assert read(tmp_path, f"{header}a.png\t4\nb/a.JPG\t0\n") == {
        "a.png": (4, first),
        "b/a.JPG": (0, first + 1),
    }


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("a.png\t5\n", ":1: class 5 of a model with 5 classes"),
        ("a.png 4\n", ":1: expected FILE"),
        ("a.png\tcat\n", ":1: expected FILE"),
        ("a.png\t-1\n", ":1: expected FILE"),
        ("file\tlabel\nb.png\t\n", ":2: expected FILE"),
        ("a.png\t1\na.png\t2\n", ":2: a.png was of class 1 before"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, rows: str, said: str) -> None:
    with pytest.raises(BuildError, match=said):
        read(tmp_path, rows)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"cannot read .*gone\.tsv: No such file"):
        read_labels(tmp_path / "gone.tsv", classes=5)
    (tmp_path / "photo.tsv").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(BuildError, match="is no UTF-8 text"):
        read_labels(tmp_path / "photo.tsv", classes=5)


def test_the_longest_end_of_a_path_counts(tmp_path: Path) -> None:
    file = tmp_path / "labels.tsv"
    file.write_text("1.png\t0\ndogs/1.png\t3\n")
    pictures = [tmp_path / name for name in ("cats/1.png", "dogs/1.png", "dogs/2.png")]
    assert labels_of(pictures, read_labels(file, classes=5), file=file) == (0, 3, None)


def test_a_name_that_two_pictures_have_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "labels.tsv"
    file.write_text("file\tclass\n1.png\t0\n")
    pictures = [Path("cats/1.png"), Path("dogs/1.png")]
    said = ":2: '1.png' may be cats/1.png or dogs/1.png; write as much"
    with pytest.raises(BuildError, match=re.escape(said)):
        labels_of(pictures, read_labels(file, classes=5), file=file)


def test_whole_paths_are_names_too() -> None:
    assert called(Path("/a/b.png"), {"/a/b.png", "b.png"}) == "/a/b.png"
    assert called(Path("/a/b.png"), {"a/b.png", "b.png"}) == "a/b.png"
    assert called(Path("/a/b.png"), {"/b.png", "c/b.png"}) is None

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybridge.cloud.compiler.pictures import open_pictures, views
from hybridge.shared.errors import BuildError


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, shade in (("b.png", 2), ("a.png", 1), ("notes.txt", 3)):
        (tmp_path / name).write_bytes(png(shade))
    return tmp_path


def test_order_labels_and_digest(folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.tsv"
    labels.write_text("file\tclass_index\na.png\t4\n")
    pictures = open_pictures(folder, labels=labels, classes=5, minimum=2)
    assert [file.name for file in pictures.files] == ["a.png", "b.png"]
    assert pictures.labels == (4, None)
    assert pictures.labelled == 1
    assert [int(picture[0, 0, 0]) for picture in pictures] == [1, 2]
    unlabelled = open_pictures(folder, labels=None, classes=5, minimum=2)
    assert unlabelled.sha256 != pictures.sha256
    (folder / "a.png").write_bytes(png(9))
    assert open_pictures(folder, labels=None, classes=5, minimum=2).sha256 != unlabelled.sha256


def test_too_few_and_none(folder: Path) -> None:
    with pytest.raises(BuildError, match="holds 2 pictures, at least 3"):
        open_pictures(folder, labels=None, classes=5, minimum=3)
    with pytest.raises(BuildError, match="no folder"):
        open_pictures(folder / "nowhere", labels=None, classes=5, minimum=1)


def test_a_damaged_picture_is_named(folder: Path) -> None:
    (folder / "b.png").write_bytes(png(1)[:40])
    pictures = open_pictures(folder, labels=None, classes=5, minimum=2)
    with pytest.raises(BuildError, match=r"b\.png"):
        list(pictures)


def test_views_are_the_picture_and_different_parts_of_it() -> None:
    picture = np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)
    made = views(picture, 8)
    assert (made[0] == picture).all()
    assert {view.shape for view in made[1:]} == {(14, 21, 3)}
    assert len({view.tobytes() for view in made}) == 8
    assert views(np.zeros((1, 1, 3), np.uint8), 3)[2].shape == (1, 1, 3)

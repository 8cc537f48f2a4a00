from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybridge.cloud.training.views import MOST_VIEWS, PictureView, all_views
from hybridge.shared.errors import BuildError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_view_0_is_the_picture_itself(file: Path) -> None:
    assert np.array_equal(PictureView(file).pixels(), np.asarray(Image.open(file)))


def test_each_view_is_another_one_and_always_the_same(file: Path) -> None:
    made = [PictureView(file, view).pixels() for view in range(6)]
    again = [PictureView(file, view).pixels() for view in range(6)]
    assert len({pixels.tobytes() for pixels in made}) == 6
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))


def test_a_key_follows_the_content_and_not_the_path(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(file.read_bytes())
    assert PictureView(copy, 2).key == PictureView(file, 2).key
    assert PictureView(copy, 1).key != PictureView(file, 2).key


def test_views_come_one_after_the_other() -> None:
    files = [Path("a"), Path("b")]
    assert [(each.file.name, each.view) for each in all_views(files, 2)] == [
        ("a", 0), ("b", 0), ("a", 1), ("b", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("count", [0, MOST_VIEWS + 1])
def test_an_impossible_number_of_views_is_refused(count: int) -> None:
    with pytest.raises(BuildError, match="views: 1 to"):
        all_views([Path("a")], count)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"gone\.png"):
        _ = PictureView(tmp_path / "gone.png").key

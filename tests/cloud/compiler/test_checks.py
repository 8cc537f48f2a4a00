import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybridge.cloud.compiler.checks import check_labelled, check_pictures, read_class_names
from hybridge.cloud.compiler.pictures import PictureSet, open_pictures
from hybridge.shared.errors import BuildError


def picture(seed: int, *, px: int) -> Image.Image:
    blots = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(blots).resize((px, px), Image.Resampling.BICUBIC)


def pictures(folder: Path, *seeds: int, suffix: str = ".png", width: int = 40) -> PictureSet:
    folder.mkdir(exist_ok=True)
    for seed in seeds:
        picture(seed, px=width).save(folder / f"{seed}{suffix}")
    return open_pictures(folder, labels=None, classes=2, minimum=1)


def test_good_pictures_pass_and_are_counted(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    seen, unseen = pictures(tmp_path / "a", 1, 2, 3), pictures(tmp_path / "b", 4, 5)
    check_pictures(seen, unseen, count=lambda done, total: told.append((done, total)))
    assert told == [(done, 5) for done in range(6)]


def test_a_broken_picture_is_named_before_any_step(tmp_path: Path) -> None:
    seen, unseen = pictures(tmp_path / "a", 1, 2), pictures(tmp_path / "b", 3)
    (tmp_path / "b" / "3.png").write_bytes((tmp_path / "b" / "3.png").read_bytes()[:100])
    with pytest.raises(BuildError, match=r"b/3\.png"):
        check_pictures(seen, unseen)


def test_a_copy_under_another_name_and_format_is_found(tmp_path: Path) -> None:
    seen = pictures(tmp_path / "a", 1, 2, 3)
    unseen = pictures(tmp_path / "b", 4)
    Image.open(tmp_path / "a" / "2.png").save(tmp_path / "b" / "other.bmp")
    unseen = open_pictures(tmp_path / "b", labels=None, classes=2, minimum=1)
    with pytest.raises(BuildError, match=r"1 pictures both .*other\.bmp is .*a/2\.png.*one folder"):
        check_pictures(seen, unseen)


def test_one_folder_for_both_is_refused_without_a_list_of_all(tmp_path: Path) -> None:
    both = pictures(tmp_path / "a", *range(8))
    with pytest.raises(BuildError, match=r"8 pictures both .* and 5 more") as caught:
        check_pictures(both, both)
    assert len(re.findall(r"\.png", str(caught.value))) == 6


def test_thumbnails_among_calibration_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"have 12 px .* on 50; both must be of the size"):
        check_pictures(
            pictures(tmp_path / "a", 1, 2, width=12), pictures(tmp_path / "b", 3, width=50)
        )
    check_pictures(pictures(tmp_path / "c", 1, width=12), pictures(tmp_path / "d", 3, width=48))


def test_a_picture_of_hardly_any_pixels_is_refused(tmp_path: Path) -> None:
    seen = pictures(tmp_path / "a", 1)
    Image.fromarray(np.zeros((7, 90, 3), np.uint8)).save(tmp_path / "a" / "thin.png")
    seen = open_pictures(tmp_path / "a", labels=None, classes=2, minimum=1)
    with pytest.raises(BuildError, match=r"thin\.png has 90x7 px, at least 8"):
        check_pictures(seen, pictures(tmp_path / "b", 2))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "names 0 classes"),
        (b"one", "names 1 classes"),
        (b"one\n\nthree", ":2: an empty line"),
        (b"one\n\xff\xfe", "no UTF-8 text"),
        (None, "cannot read .*: No such file or directory; check its path"),
    ],
)
def test_labels_that_name_no_classes(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "labels.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BuildError, match=said):
        read_class_names(file)


def test_class_names_are_read_in_order(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("zebra\nmöwe\n", encoding="utf-8")
    assert read_class_names(file) == ("zebra", "möwe")


def labelled(folder: Path, rows: str) -> None:
    """Checks a labels file against 1.png and 2.png, which calibrate, and 3.png and 4.png."""
    seen = pictures(folder / "a", 1, 2)
    pictures(folder / "b", 3, 4)
    table = folder / "labels.tsv"
    table.write_text(rows)
    unseen = open_pictures(folder / "b", labels=table, classes=2, minimum=1)
    check_labelled(table, classes=2, evaluation=unseen, others=[seen])


def test_labels_may_be_partial_and_of_calibration_pictures(tmp_path: Path) -> None:
    labelled(tmp_path, "3.png\t1\n")
    labelled(tmp_path, "file\tclass\n1.png\t1\n3.png\t0\n4.png\t1\n")
    check_labelled(None, classes=2, evaluation=pictures(tmp_path / "b"), others=[])


def test_labels_of_other_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"names none of the evaluation pictures, such as '3\.png"):
        labelled(tmp_path, "1.png\t1\n")


def test_labels_of_pictures_that_are_not_there_are_refused(tmp_path: Path) -> None:
    rows = "3.png\t1\n" + "".join(f"gone{number}.png\t0\n" for number in range(5))
    said = (
        r"names 5 of 6 pictures that are in none of the recipe's folders: 'gone0\.png' \(line 2\), "
        r".*'gone2\.png' \(line 4\) and 2 more; add the pictures, or remove their lines"
    )
    with pytest.raises(BuildError, match=said):
        labelled(tmp_path, rows)

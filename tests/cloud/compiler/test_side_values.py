from pathlib import Path

import pytest
from PIL import Image

from hybridge.cloud.compiler.pictures import PictureSet, open_pictures
from hybridge.cloud.compiler.side_values import side_values, with_table
from hybridge.shared.errors import BuildError
from hybridge.shared.tensor import TensorSpec

PATIENT = TensorSpec("patient", "FP32", (2,))
SITE = TensorSpec("site", "INT64", ())
TABLE = "file\tsite\tpatient\na.png\t3\t63 1\nmeasured/b.png\t0\t48,0\nb.png\t1\t20 1\n"


@pytest.fixture
def sets(tmp_path: Path) -> list[PictureSet]:
    """a.png and b.png to calibrate with, another b.png to measure on."""
    for file in ("seen/a.png", "seen/b.png", "measured/b.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), (1, 2, 3)).save(tmp_path / file)
    return [
        open_pictures(tmp_path / name, labels=None, classes=2, minimum=1)
        for name in ("seen", "measured")
    ]


def read(sets: list[PictureSet], table: str, *specs: TensorSpec) -> list[dict[str, object]]:
    """The values of both sets, as plain numbers."""
    file = sets[0].files[0].parent / "inputs.tsv"
    file.write_text(table)
    both = with_table(sets, file)
    values = [each for pictures in both for each in side_values(pictures, specs)]
    return [{name: array.tolist() for name, array in value.items()} for value in values]


def test_the_longest_name_wins(sets: list[PictureSet]) -> None:
    assert read(sets, TABLE, PATIENT, SITE) == [
        {"site": [3], "patient": [[63, 1]]},
        {"site": [1], "patient": [[20, 1]]},
        {"site": [0], "patient": [[48, 0]]},
    ]


def test_other_values_are_another_set_of_pictures(sets: list[PictureSet], tmp_path: Path) -> None:
    file = tmp_path / "inputs.tsv"
    digests = set()
    for table in (TABLE, TABLE.replace("63", "64"), TABLE.replace("site", "city")):
        file.write_text(table)
        digests.add(with_table(sets, file)[0].sha256)
    assert len(digests | {sets[0].sha256}) == 4
    assert with_table(sets, None) == sets


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", r"inputs\.tsv:1: expected file<tab>NAME"),
        (TABLE + "c.png\t1\t1 1\n", r"inputs\.tsv:5: no picture 'c.png' among"),
        (TABLE.replace("a.png", "x/a.png"), r"has no line for the picture .*seen/a\.png"),
        (TABLE + "a.png\t1\t1 1\n", r"inputs\.tsv:5: 'a.png' again, after line 2"),
        (TABLE.replace("\t48,0", ""), r"inputs\.tsv:3: 2 columns, line 1 has 3"),
        (TABLE.replace("63 1", "63"), r"inputs\.tsv:2: patient .* takes 2 numbers, 1 were given"),
        (TABLE.replace("48,0", "48,old"), r"inputs\.tsv:3: 'old' is no number"),
        (TABLE.replace("\t3\t", "\t1.5\t"), r"inputs\.tsv:2: '1\.5' is no whole number"),
        (TABLE.replace("site", "age"), r"inputs\.tsv:1: 'age' is no input of the large model; it"),
        ("file\tsite\na.png\t1\nb.png\t1\n", r"expected file<tab>patient<tab>site, got file<tab>s"),
    ],
)
def test_what_does_not_fit_is_named_with_its_line(
    sets: list[PictureSet], table: str, message: str
) -> None:
    with pytest.raises(BuildError, match=message):
        read(sets, table, PATIENT, SITE)


def test_a_table_and_a_model_that_do_not_need_each_other(sets: list[PictureSet]) -> None:
    with pytest.raises(BuildError, match=r"takes patient FP32 \[2\] beside a picture; name a tab"):
        side_values(sets[0], [PATIENT])
    with pytest.raises(BuildError, match="takes nothing beside a picture"):
        read(sets, TABLE)
    assert side_values(sets[0], []) == [{}, {}]


def test_a_table_that_cannot_be_read(sets: list[PictureSet], tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"cannot read .*nowhere"):
        with_table(sets, tmp_path / "nowhere.tsv")
    (tmp_path / "photo.tsv").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(BuildError, match="is no text"):
        with_table(sets, tmp_path / "photo.tsv")

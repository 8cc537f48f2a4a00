from pathlib import Path

import numpy as np
import pytest
from bundle_accuracy import Tally, differing, judge, main, open_data, percent_right
from PIL import Image

from hybridge.shared.errors import ConfigError
from hybridge.shared.manifest import PlanRow, Rate


def make_row(hits: int, samples: int) -> PlanRow:
    rate = Rate.of(hits, samples)
    return PlanRow(plan="cloud:png", agreement=rate, accuracy=None, bytes_p50=90, bytes_p95=99)


def make_folder(folder: Path, *, labelled: int, unlabelled: int = 0) -> Path:
    lines = ["file\tclass_index"]
    for number in range(labelled + unlabelled):
        name = f"{number:02}.png"
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(folder / name)
        if number < labelled:
            lines.append(f"{name}\t{number % 5}")
    (folder / "labels.tsv").write_text("\n".join(lines))
    return folder


def test_differing_and_percent_right() -> None:
    assert differing([1, 2, 3, 4], [1, 0, 3, 0]) == 2
    assert percent_right([1, 2, 3, 4], [1, 0, 3, 4]) == 75.0


def test_answers_of_unequal_number_are_a_defect() -> None:
    with pytest.raises(ValueError, match="argument 2 is longer"):
        differing([1], [1, 2])


def test_a_plan_as_good_as_its_table_holds() -> None:
    wanted = [0] * 100
    verdict = judge(make_row(19, 20), Tally([0] * 95 + [1] * 5, [80] * 100), wanted)
    assert verdict.gap == pytest.approx(0.0)
    assert verdict.holds
    assert (verdict.bytes_p50, verdict.promised_bytes_p50) == (80, 90)
    assert (verdict.measured.value, verdict.measured.samples) == (0.95, 100)


@pytest.mark.parametrize("wrong", [30, 0])
def test_a_plan_better_or_worse_than_its_table_fails(wrong: int) -> None:
    row, wanted = make_row(850, 1_000), [0] * 400
    answers = [1] * (4 * wrong) + [0] * (400 - 4 * wrong)
    verdict = judge(row, Tally(answers, [80] * 400), wanted)
    assert not verdict.holds
    assert (verdict.gap > 0) == (wrong == 0)
    errors = verdict.measured.standard_error, row.agreement.standard_error
    assert verdict.allowed == pytest.approx(2 * (errors[0] ** 2 + errors[1] ** 2) ** 0.5)


def test_all_labelled_pictures_are_taken_and_no_others(tmp_path: Path) -> None:
    found = open_data(make_folder(tmp_path, labelled=7, unlabelled=3), classes=5, most=None)
    assert [file.name for file in found.files] == [f"{number:02}.png" for number in range(7)]
    assert found.labels == (0, 1, 2, 3, 4, 0, 1)


def test_some_pictures_are_spread_over_all(tmp_path: Path) -> None:
    found = open_data(make_folder(tmp_path, labelled=10), classes=5, most=3)
    assert [file.name for file in found.files] == ["00.png", "03.png", "06.png"]


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no labels\.tsv"):
        open_data(tmp_path, classes=5, most=None)


def test_labels_of_other_pictures_are_refused(tmp_path: Path) -> None:
    make_folder(tmp_path, labelled=0, unlabelled=2)
    with pytest.raises(ConfigError, match="none of its pictures"):
        open_data(tmp_path, classes=5, most=None)


def test_a_folder_that_is_not_there_is_a_bad_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(tmp_path / "nothing"), "--json"]) == 78
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no such folder" in captured.err


def test_data_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "--data" in capsys.readouterr().err

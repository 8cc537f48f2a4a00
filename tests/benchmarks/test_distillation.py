"""The parts of benchmarks/compiler/distillation.py that compute something."""

from pathlib import Path

import numpy as np
import pytest
from compiler.distillation import CLASSES, Times, main, open_data, some, targets
from PIL import Image

from hybridge.cloud.training.comparison import compare
from hybridge.shared.errors import ConfigError


def make_data(folder: Path, *, each: int = 3) -> Path:
    for part in ("train", "test"):
        for at, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for number in range(each):
                pixels = np.full((4, 4, 3), 60 * at + number, np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{part}-{name}-{number}.jpg")
    return folder


def test_only_the_test_pictures_have_labels(tmp_path: Path) -> None:
    data = open_data(make_data(tmp_path / "data"), tmp_path, quick=False)
    assert set(data.learned.labels) == {None}
    assert len(data.learned) == len(data.test) == 12
    for file, label in zip(data.test.files, data.test.labels, strict=True):
        assert label is not None
        assert file.parent.name == CLASSES[label]


def test_some_pictures_are_of_all_classes(tmp_path: Path) -> None:
    data = open_data(make_data(tmp_path / "data"), tmp_path, quick=False)
    few = some(data.test, 6)
    assert len(few) == 6
    assert set(few.labels) == {0, 1, 2, 3}
    assert few.sha256 != data.test.sha256
    assert few == some(data.test, 6)


def test_another_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="must hold the folders glioma"):
        open_data(tmp_path, tmp_path, quick=False)
    assert main([str(tmp_path), "--json"]) == 78
    assert capsys.readouterr().out == ""


def test_targets_take_the_median_of_the_ratios_and_never_invent_an_agreement() -> None:
    logits = np.array([[5, 0], [0, 5]], np.float32)
    times = Times(student_ms=[1.0, 4.0, 2.0], teacher_ms=[10.0, 10.0, 40.0])
    made = targets(compare(logits, logits, temperature=1.0), times, 7_000_000)
    assert [target.value for target in made] == [1.0, 0.1, 7.0]
    assert [target.holds for target in made] == [True, True, False]
    unsure = targets(compare(logits, logits / 50, temperature=1.0), times, 1)
    assert (unsure[0].value, unsure[0].holds) == (0.0, False)

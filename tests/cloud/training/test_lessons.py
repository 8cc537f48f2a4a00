import numpy as np
import pytest
import torch

from hybridge.cloud.training.answers import picture_key
from hybridge.cloud.training.lessons import Lessons, as_logits, output_kind_of, split
from hybridge.shared.errors import BuildError
from hybridge.shared.manifest import OutputKind

from .small import PICTURES, lessons


def keys(count: int) -> list[bytes]:
    return [picture_key(b"%d" % number) for number in range(count)]


def test_a_picture_never_changes_sides() -> None:
    few, many = keys(400), keys(600)
    _, held_few = split(few, held_out=0.2)
    learned, held_many = split(many[::-1], held_out=0.2)
    positions = {599 - int(position) for position in held_many}
    assert set(held_few.tolist()) == {position for position in positions if position < 400}
    assert len(learned) + len(held_many) == 600
    assert 0.15 < len(held_many) / 600 < 0.25


def test_too_few_pictures_are_told() -> None:
    with pytest.raises(BuildError, match=r"100 pictures leave \d+ to learn from and \d held out"):
        split(keys(100), held_out=0.05)


def test_an_epoch_has_each_learned_picture_once_in_one_of_its_views() -> None:
    given = lessons(views=3)
    rows = given.draw(seed=1, epoch=0)
    assert sorted(rows % PICTURES) == sorted(given.learned)
    assert set(rows // PICTURES) == {0, 1, 2}
    assert not set(rows % PICTURES) & set(given.held_out)


def test_epochs_differ_and_can_be_drawn_again() -> None:
    given = lessons()
    first = given.draw(seed=1, epoch=0)
    assert np.array_equal(first, given.draw(seed=1, epoch=0))
    assert not np.array_equal(first, given.draw(seed=1, epoch=1))
    assert not np.array_equal(first, given.draw(seed=2, epoch=0))


def test_inputs_are_normalized_as_on_the_device() -> None:
    given: Lessons = lessons()
    rows = np.array([5, 0])
    found = given.inputs(rows, torch.device("cpu")).numpy()
    wanted = (given.pixels[rows].astype(np.float32) - 127) / 128
    assert np.array_equal(found, wanted.transpose(0, 3, 1, 2))


def test_probabilities_become_logits_that_give_them_back() -> None:
    probabilities = np.array([[0.7, 0.3], [1.0, 0.0]], np.float32)
    assert output_kind_of(probabilities) is OutputKind.PROBABILITIES
    logits = torch.from_numpy(as_logits(probabilities, OutputKind.PROBABILITIES))
    assert torch.softmax(logits, 1).numpy() == pytest.approx(probabilities, abs=1e-6)
    assert np.isfinite(logits.numpy()).all()


def test_logits_stay_as_they_are() -> None:
    logits = np.array([[2.0, -1.0]], np.float32)
    assert output_kind_of(logits) is OutputKind.LOGITS
    assert as_logits(logits, OutputKind.LOGITS) is logits

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hybridge.cloud.training.student import Student, make_student
from hybridge.cloud.training.trainer import Standing, Trained
from hybridge.shared.errors import BuildError

from . import small


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Student, Trained]:
    return small.train(tmp_path_factory.mktemp("uninterrupted"))


def same_weights(one: Student, other: Student) -> bool:
    weights = other.state_dict()
    return all(torch.equal(each, weights[name]) for name, each in one.state_dict().items())


def test_a_student_learns_its_teachers_answers(uninterrupted: tuple[Student, Trained]) -> None:
    _, trained = uninterrupted
    assert trained.score > 0.8
    assert trained.epochs == small.SETTINGS.epochs


def test_a_killed_training_carries_on_to_the_very_same_weights(
    tmp_path: Path, uninterrupted: tuple[Student, Trained]
) -> None:
    process = subprocess.Popen(
        [sys.executable, small.__file__, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.split() == ["2", "2"]:  # in the middle of an epoch
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    seen: list[Standing] = []
    net, trained = small.train(tmp_path, seen.append)
    assert seen[0].epoch >= 2  # not from the start
    assert same_weights(net, uninterrupted[0])
    assert trained == uninterrupted[1]


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    small.train(tmp_path, settings=replace(small.SETTINGS, epochs=1))
    seen: list[Standing] = []
    _, trained = small.train(tmp_path, seen.append, settings=replace(small.SETTINGS, epochs=1))
    assert (seen, trained.epochs) == ([], 1)


def test_tuning_ends_where_nothing_is_gained_and_keeps_the_best(tmp_path: Path) -> None:
    start = make_student(width=0.25, depth=0.1, classes=small.CLASSES)
    before = {name: each.clone() for name, each in start.state_dict().items()}
    # Steps this large ruin any net.
    net, trained = small.train(
        tmp_path, settings=replace(small.SETTINGS, epochs=9, patience=2), learning_rate=1.0,
        statistics=False, net=start,
    )  # fmt: skip
    assert (trained.best_epoch, trained.epochs) == (0, 2)
    assert all(torch.equal(each, before[name]) for name, each in net.state_dict().items())


def test_a_training_that_diverges_says_what_to_do(tmp_path: Path) -> None:
    net = make_student(width=0.25, depth=0.1, classes=small.CLASSES)
    with torch.no_grad():
        net.head.weight.fill_(float("nan"))
    with pytest.raises(BuildError, match=r"loss is nan in epoch 1.*--learning-rate"):
        small.train(tmp_path, net=net)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(BuildError, match=r"checkpoint\.pt.*remove it"):
        small.train(tmp_path)


def test_a_checkpoint_executes_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return marker.write_text, ("",)

    torch.save({"net": Malicious()}, tmp_path / "checkpoint.pt")
    with pytest.raises(BuildError, match="no checkpoint"):
        small.train(tmp_path)
    assert not marker.exists()


def test_frozen_layers_do_not_learn(tmp_path: Path) -> None:
    net = make_student(width=0.25, depth=0.1, classes=small.CLASSES)
    first = next(net.parameters())
    first.requires_grad_(False)
    before = first.detach().clone()
    small.train(tmp_path, settings=replace(small.SETTINGS, epochs=1), net=net)
    assert torch.equal(first, before)


def test_the_time_left_ends_at_zero(tmp_path: Path) -> None:
    seen: list[Standing] = []
    small.train(tmp_path, seen.append, settings=replace(small.SETTINGS, epochs=1))
    assert seen[0].left_s > 0
    assert seen[-1].left_s == 0


def test_random_weights_are_never_the_best(tmp_path: Path) -> None:
    _, trained = small.train(
        tmp_path, settings=replace(small.SETTINGS, epochs=2, patience=2), learning_rate=1.0
    )
    assert trained.best_epoch > 0


def test_statistics_follow_within_one_epoch(tmp_path: Path) -> None:
    # At torch's own momentum they are still half those of a net that was never trained.
    net, _ = small.train(tmp_path, settings=replace(small.SETTINGS, epochs=1), learning_rate=1e-6)
    given = small.lessons()
    stem = net.get_submodule("features.net.0")
    pictures = given.inputs(given.learned, torch.device("cpu"))
    maps = stem.get_submodule("0")(pictures)
    assert torch.allclose(
        stem.get_submodule("1").running_mean, maps.mean((0, 2, 3)), atol=0.05, rtol=0.1
    )

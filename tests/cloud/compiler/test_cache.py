from pathlib import Path

import pytest

from hybridge.cloud.compiler.cache import StepCache, write_whole
from hybridge.shared.errors import BuildError


class Work:
    """Counts how often it is done."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> bytes:
        self.times += 1
        return b"result %d" % self.times


def test_a_step_is_done_once_for_the_same_inputs(tmp_path: Path) -> None:
    work = Work()
    first = StepCache(tmp_path).get("step", inputs=["a", 1], make=work)
    again = StepCache(tmp_path).get("step", inputs=["a", 1], make=work)  # as after a restart
    assert first == again == b"result 1"
    assert work.times == 1


@pytest.mark.parametrize(("step", "inputs"), [("step", ["a", 2]), ("other", ["a", 1])])
def test_other_inputs_are_another_step(tmp_path: Path, step: str, inputs: list[object]) -> None:
    work, cache = Work(), StepCache(tmp_path)
    cache.get("step", inputs=["a", 1], make=work)
    assert cache.get(step, inputs=inputs, make=work) == b"result 2"


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise BuildError("no")

    cache = StepCache(tmp_path)
    with pytest.raises(BuildError):
        cache.get("step", inputs=1, make=fail)
    assert list(tmp_path.iterdir()) == []
    assert cache.get("step", inputs=1, make=lambda: b"now") == b"now"


def test_a_file_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(BuildError, match="cannot write"):
        write_whole(taken, b"content")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]

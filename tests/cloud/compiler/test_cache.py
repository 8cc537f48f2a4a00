import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from hybridge.cloud.compiler.cache import StepCache, step_key
from hybridge.cloud.compiler.files import write_whole
from hybridge.shared.errors import BuildError


class Work:
    """Counts how often it is done."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> bytes:
        self.times += 1
        return b"result %d" % self.times


def never() -> bytes:
    raise AssertionError("this step was made already")


def fill(cache: StepCache, *numbers: int, size: int = 1000) -> None:
    for number in numbers:
        cache.get("step", inputs=number, make=lambda: bytes(size))


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_step_is_done_once_for_the_same_inputs(tmp_path: Path) -> None:
    work = Work()
    first, again = StepCache(tmp_path), StepCache(tmp_path)  # as after a restart
    made = first.get("step", inputs=["a", 1], make=work)
    assert made == again.get("step", inputs=["a", 1], make=work) == b"result 1"
    assert work.times == 1
    assert (first.made, first.reused) == (["step"], [])
    assert (again.made, again.reused) == ([], ["step"])
    assert len(files(tmp_path)) == 1  # no lock is left


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
    assert files(tmp_path) == []
    assert cache.get("step", inputs=1, make=lambda: b"now") == b"now"


def truncated(content: bytes) -> bytes:
    return content[:-1]


def with_a_bit_flipped(content: bytes) -> bytes:
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


def emptied(_: bytes) -> bytes:
    return b""


def of_an_older_version(content: bytes) -> bytes:
    return content[48:]  # there was no header


@pytest.mark.parametrize("damage", [truncated, with_a_bit_flipped, emptied, of_an_older_version])
def test_a_damaged_step_is_made_again(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    work, cache = Work(), StepCache(tmp_path)
    cache.get("step", inputs=1, make=work)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    # The first cache still has it in use.
    assert StepCache(tmp_path).get("step", inputs=1, make=work) == b"result 2"
    assert StepCache(tmp_path).get("step", inputs=1, make=never) == b"result 2"


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    def aged(number: int, seconds: float) -> Path:
        fill(StepCache(tmp_path), number)
        file = tmp_path / f"step-{step_key('step', number)}"
        os.utime(file, (time.time() - seconds,) * 2)
        return file

    first, second, third = aged(1, 300), aged(2, 200), aged(3, 100)
    fill(StepCache(tmp_path), 1)  # used again, by a build that has ended
    fill(StepCache(tmp_path, size_bytes=3500), 4)
    assert first.exists()
    assert not second.exists()
    assert third.exists()
    assert len(files(tmp_path)) == 3


def test_steps_in_use_are_not_dropped(tmp_path: Path) -> None:
    busy = StepCache(tmp_path)
    fill(busy, 1, 2)
    fill(StepCache(tmp_path, size_bytes=1500), 3)
    assert len(files(tmp_path)) == 3
    del busy
    fill(StepCache(tmp_path, size_bytes=1500), 4)
    assert len(files(tmp_path)) == 1


def test_one_step_larger_than_the_cache_is_no_failure(tmp_path: Path) -> None:
    cache = StepCache(tmp_path, size_bytes=10)
    assert cache.get("step", inputs=1, make=lambda: bytes(100)) == bytes(100)


def test_what_killed_builds_left_is_removed(tmp_path: Path) -> None:
    for name in (".part-0123", "step-aa.lock"):
        (tmp_path / name).write_bytes(b"half")
    fill(StepCache(tmp_path), 1)
    assert [name for name in files(tmp_path) if "-aa" in name or "part" in name] == []


@dataclass(frozen=True)
class Settings:
    size_px: int
    mean: tuple[float, ...]


def test_keys_hold_values_only() -> None:
    inputs = {"b": {3, 1, 2}, "a": Settings(size_px=4, mean=(1.0, 2.5))}
    same = {"a": {"size_px": 4, "mean": [1.0, 2.5]}, "b": [1, 2, 3]}
    assert step_key("step", inputs) == step_key("step", same)
    # Frozen: another key would make every cache useless, or worse, find what is not the same.
    assert step_key("step", same) == "0566dcb3a4e4610035e8e93d4c92ea05"


@pytest.mark.parametrize("thing", [object(), Path("a"), lambda: 1, [Work()]])
def test_what_has_no_value_cannot_be_in_a_key(thing: object) -> None:
    with pytest.raises(TypeError, match="cannot be part of a step's key"):
        step_key("step", thing)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_whole(file, b"old")
    with pytest.raises(TypeError):
        write_whole(file, b"new", cast(bytes, None))  # fails between its parts
    assert file.read_bytes() == b"old"
    assert files(tmp_path) == ["file"]


def test_a_file_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(BuildError, match="cannot write"):
        write_whole(taken, b"content")
    assert files(tmp_path) == ["taken"]


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(BuildError, match=r"cannot write .*taken.*HYBRIDGE_HOME"):
        StepCache(tmp_path / "taken" / "build").get("step", inputs=1, make=lambda: b"")

"""Work in another process: what it gives, what it tells on the way, and how it can fail."""

import os
import signal

import pytest

from hybridge.cloud.compiler.apart import apart, bytes_apart, counted_apart
from hybridge.cloud.compiler.progress import Count
from hybridge.shared.errors import BuildError

NEVER_LOADED = "a library that nobody has loaded"


def who() -> int:
    return os.getpid()


def squares(count: Count, numbers: int, *, plus: int) -> list[int]:
    made = []
    for number in range(numbers):
        count(number, numbers)
        made.append(number**2 + plus)
    return made


def zeros(size: int) -> bytes:
    return bytes(size)


def fail(count: Count) -> None:
    count(1, 2)
    raise BuildError("this cannot be built")


def die(count: Count) -> None:
    count(1, 2)
    os.kill(os.getpid(), signal.SIGKILL)


def test_it_is_done_elsewhere_unless_the_library_is_here() -> None:
    assert apart(NEVER_LOADED, who) not in (os.getpid(), None)
    assert apart("os", who) == os.getpid()


@pytest.mark.parametrize("library", [NEVER_LOADED, "os"])
def test_what_is_counted_there_is_told_here(library: str) -> None:
    told: list[tuple[int, int]] = []
    made = counted_apart(library, lambda *said: told.append(said), squares, 4, plus=1)
    assert made == [1, 2, 5, 10]
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_large_results_come_by_a_file() -> None:
    assert bytes_apart(NEVER_LOADED, zeros, 3_000_000) == bytes(3_000_000)


def test_errors_are_raised_here() -> None:
    told: list[tuple[int, int]] = []
    with pytest.raises(BuildError, match=r"^this cannot be built$"):
        counted_apart(NEVER_LOADED, lambda *said: told.append(said), fail)
    assert told == [(1, 2)]


def test_a_process_that_dies_is_no_result() -> None:
    told: list[tuple[int, int]] = []
    with pytest.raises(BuildError, match=r"the process of die died; .* it carries on"):
        counted_apart(NEVER_LOADED, lambda *said: told.append(said), die)
    assert told == [(1, 2)]


def test_who_no_longer_listens_ends_it() -> None:
    def enough(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        counted_apart(NEVER_LOADED, enough, squares, 10**9, plus=0)

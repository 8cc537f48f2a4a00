"""The fuzzers' cases: one that computes without end or ends its process is told like any other."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice

import pytest
from _tries import Cases, Try, tried


def spin() -> str:
    while True:
        pass


def leave() -> str:
    os._exit(3)


def grow() -> str:
    return f"{len(bytearray(200 << 20)):,} bytes"


def cases(chance: random.Random, *, then: Callable[[], str]) -> Iterator[Try]:
    yield Try(str(chance.random()), b"first", lambda: "refused")
    yield Try("second", b"second", then)


@pytest.mark.parametrize(
    ("then", "limit_s", "said"),
    [
        (spin, 0.2, "more than 0.2 s"),
        (leave, 60.0, "ended its process: 3"),
        (grow, 60.0, " bytes of memory"),
    ],
)
def test_a_bad_case_is_told_and_others_follow(
    then: Callable[[], str], limit_s: float, said: str
) -> None:
    every: Cases = partial(cases, then=then)
    with closing(tried(every, 1, limit_s=limit_s)) as found:
        first, second = islice(found, 2)
        assert (first.frame, first.said) == (b"first", "refused")
        assert (second.name, second.frame) == ("second", b"second")
        assert second.said.endswith(said)
        if then is not grow:
            again = next(found)
            assert (again.frame, again.said) == (b"first", "refused")
            assert again.name != first.name

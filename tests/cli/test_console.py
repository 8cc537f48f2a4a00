"""Progress as people see it, and as lines where nobody watches."""

import io

import pytest
from rich.console import Console

from hybridge.cli import console
from hybridge.cli.console import StepProgress


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def notes(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> io.StringIO:
    """What is written to stderr."""
    said = io.StringIO()
    made = Console(file=said, force_terminal=terminal, width=160, highlight=False, emoji=False)
    monkeypatch.setattr(console, "notes", made)
    return said


def test_a_step_that_counts_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    said = notes(monkeypatch, terminal=True)
    with StepProgress(clock) as progress:
        progress("reading", 0, 0)
        progress("measuring", 0, 1200)
        clock.now_s += 60
        progress("measuring", 300, 1200)
    last = said.getvalue().rpartition("reading")[2]
    assert "300/1,200" in last
    assert "0:03:00 left" in last


def test_a_note_of_its_own_stands_in_place_of_the_time_left(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    said = notes(monkeypatch, terminal=True)
    with StepProgress(clock) as progress:
        progress("training", 0, 100)
        clock.now_s += 60
        progress("training", 50, 100, note="epoch 2")
    assert "epoch 2" in said.getvalue()
    assert "left" not in said.getvalue()


def test_where_nobody_watches_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    said = notes(monkeypatch, terminal=False)
    with StepProgress(clock) as progress:
        progress("reading [all]", 0, 0)
        for done in range(10):
            progress("measuring", done, 10)
            clock.now_s += 10
        progress("training", 0, 2, note="epoch 1")
        clock.now_s += 100
        progress("training", 1, 2, note="epoch 2")
    assert said.getvalue().splitlines() == [
        "- reading [all]",
        "- measuring",
        "  3/10, 0:01:10 left",
        "  6/10, 0:00:40 left",
        "  9/10, 0:00:10 left",
        "- training",
    ]

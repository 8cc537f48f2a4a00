"""Where commands write: people read tables and colours, programs read --json."""

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..report.words import NOTHING

_PLAIN_WIDTH = 160
"""Columns where output goes to a file or a pipe, which wrap nothing."""

LINE_EVERY_S = 30.0
"""Where nobody watches, a step that counts says so often how far it is."""
_LEFT_AFTER_S = 5.0
"""Before, it is not foretold how long it will take."""

_FIGURE = re.compile(rf"[-\d.,/%± {NOTHING}]*")

console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
notes = Console(stderr=True, highlight=False, emoji=False)
"""Progress and complaints: stdout is for results alone."""


def complain(message: str) -> None:
    """One line on stderr."""
    notes.print(f"[red]hybridge:[/red] {_escaped(message)}", soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True) + "\n")


def print_json_line(value: Any) -> None:
    """One JSON object on a line of its own, for whoever reads a stream of them."""
    sys.stdout.write(json.dumps(value, sort_keys=True) + "\n")
    sys.stdout.flush()


def print_line(text: str) -> None:
    """One line on stdout, as it is."""
    sys.stdout.write(f"{text}\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose columns after the first line up on the right where they hold figures."""
    made = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for position, column in enumerate(columns):
        figures = all(_FIGURE.fullmatch(row[position]) for row in rows)
        made.add_column(
            column,
            justify="right" if figures and rows else "left",
            no_wrap=position < len(columns) - 1,
        )
    for row in rows:
        made.add_row(*row)
    return made


class StepProgress:
    """A progress line per step on stderr, with its time and how much of it is done.

    Where nobody watches, plain lines: one per step, and one now and then of a long step that
    counts.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/green]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=notes,
            disable=not notes.is_terminal,
        )
        self._clock = clock
        self._name = ""
        self._task: Any = None
        self._began_s = self._said_s = 0.0

    def __enter__(self) -> "StepProgress":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._close()
        self._progress.stop()

    def __call__(self, step: str, done: int, total: int, *, note: str = "") -> None:
        """The builder's progress callback; a note stands behind the bar."""
        if step != self._name:
            self._close()
            self._name = step
            self._began_s = self._said_s = self._clock()
            self._task = self._progress.add_task(_escaped(step), total=None, note="", count="")
            if not notes.is_terminal:
                notes.print(f"- {_escaped(step)}", soft_wrap=True)
        if total:
            count = f"{done:,}/{total:,}"
            left = "" if note else self._left(done, total)
            self._progress.update(
                self._task, completed=done, total=total, count=count, note=note or left
            )
            self._say(", ".join(filter(None, (count, left))), note)

    def _left(self, done: int, total: int) -> str:
        """How long the rest will take if it goes on like this; empty before that can be told."""
        took_s = self._clock() - self._began_s
        if took_s < _LEFT_AFTER_S or not 0 < done < total:
            return ""
        return f"{timedelta(seconds=round(took_s / done * (total - done)))} left"

    def _say(self, standing: str, note: str) -> None:
        """Who adds a note of its own says it when there is something new."""
        now_s = self._clock()
        if not notes.is_terminal and not note and now_s - self._said_s >= LINE_EVERY_S:
            self._said_s = now_s
            notes.print(f"  {standing}")

    def _close(self) -> None:
        if self._task is not None:
            self._progress.update(self._task, total=1, completed=1)


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")

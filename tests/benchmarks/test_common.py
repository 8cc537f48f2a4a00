import argparse
import dataclasses
import io
import json
import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
from _common import Report, Summary, Target, parser, run
from rich.console import Console

from hybridge.shared.errors import ConfigError

MACHINE = {"processor": "one", "cores": 2, "load_before": 0.5, "load_after": 0.75}


def make_report(*values: float) -> Report:
    return Report(
        benchmark="example",
        targets=[Target.at_most(f"t{v:g}", v, unit="ms", bound=1.0) for v in values],
        figures={"rounds": 3},
        samples={"ms": [0.5, 1.5]},
        machine=MACHINE,
        notes=["a note"],
    )


def run_with(measure: Callable[[argparse.Namespace], Report], *arguments: str) -> int:
    return run(measure, parser("example").parse_args(arguments))


def test_summary_of_known_samples() -> None:
    found = Summary.of([float(value) for value in range(100, 0, -1)])
    assert (found.median, found.samples) == (50.5, 100)
    assert (found.p25, found.p75) == (25.75, 75.25)
    # The 40th and 61st of 100 ordered samples bound the median with 95 %, to the cautious side.
    assert (found.low, found.high) == (40.0, 61.0)


def test_summary_of_one_sample_claims_nothing_more() -> None:
    found = Summary.of([2.0])
    assert (found.low, found.median, found.high) == (2.0, 2.0, 2.0)


def test_summary_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        Summary.of([])


@pytest.mark.parametrize("count", [15, 50, 300])
def test_the_interval_covers_the_median_as_often_as_it_says(count: int) -> None:
    random = np.random.default_rng(0)
    runs = 1_000
    covered = 0
    for _ in range(runs):
        found = Summary.of(random.exponential(1.0, count).tolist())  # skewed, as latencies are
        covered += found.low <= math.log(2) <= found.high
    assert 0.93 <= covered / runs <= 0.995


@pytest.mark.parametrize(("value", "holds"), [(0.9, True), (1.0, True), (1.0001, False)])
def test_a_target_at_its_bound_holds(value: float, holds: bool) -> None:
    assert Target.at_most("t", value, unit="ms", bound=1.0).holds is holds
    assert Target.at_least("t", -value, unit="ms", bound=-1.0).holds is holds


def test_what_was_not_measured_says_why() -> None:
    missing = Target.not_measured("t", unit="ms", bound=1.0, why="there is no GPU")
    told = {"name": "t", "value": None, "unit": "ms", "bound": 1.0, "holds": None}
    assert missing.as_json() == {**told, "note": "there is no GPU"}
    out = io.StringIO()
    report = make_report(0.5)
    dataclasses.replace(report, targets=[missing]).show(Console(file=out, width=100))
    assert "not measured" in out.getvalue()


def test_json_is_one_object_whatever_else_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    def measure(options: argparse.Namespace) -> Report:
        sys.stdout.write("building\n")
        return make_report(0.5, 1.5)

    assert run_with(measure, "--json") == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert "building" in captured.err
    assert told["targets"] == [
        {"name": "t0.5", "value": 0.5, "unit": "ms", "bound": 1.0, "holds": True},
        {"name": "t1.5", "value": 1.5, "unit": "ms", "bound": 1.0, "holds": False},
    ]
    assert told["samples"] == {"ms": [0.5, 1.5]}
    assert told["machine"] == MACHINE


def test_people_see_which_target_is_missed() -> None:
    out = io.StringIO()
    make_report(0.5, 1.5).show(Console(file=out, width=100))
    verdicts = {line.split()[0]: line.split()[-1] for line in out.getvalue().splitlines()}
    assert (verdicts["t0.5"], verdicts["t1.5"]) == ("yes", "NO")
    assert "note: a note" in out.getvalue()


def test_a_fault_exits_as_the_command_line_does(capsys: pytest.CaptureFixture[str]) -> None:
    def measure(options: argparse.Namespace) -> Report:
        raise ConfigError("no such thing")

    assert run_with(measure, "--json") == 78
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no such thing" in captured.err


def test_unknown_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parser("example").parse_args(["--fast"])
    assert stopped.value.code == 2
    assert "--fast" in capsys.readouterr().err

"""Times that are compared: measured in turns, in processor time of the thread that computes.

What else the machine does then hardly counts: with seven processes on two cores the times of the
same operators on the clock made a third of a net's convolutions look slower in int8 than in float;
their processor times moved by a tenth between runs.
"""

import statistics
import time
from collections.abc import Callable, Mapping

from ....devices.profile import Runs

_ROUND_MS = 1.0
_MOST_RUNS = 200

Work = Mapping[str, Callable[[], object]]


def interleaved(work: Work, *, rounds: int, warm_up: int = 2) -> dict[str, Runs]:
    """The times of one run of each, round by round, which must compute in the calling thread.

    In every round each is run often enough to take about a millisecond.
    """
    repeats = {name: _repeats(run, warm_up) for name, run in work.items()}
    found = {name: Runs() for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            found[name].extend(_time(run, repeats[name]))
    return found


def interleaved_ms(work: Work, *, rounds: int) -> dict[str, float]:
    """The median processor time of one run of each."""
    found = interleaved(work, rounds=rounds)
    return {name: statistics.median(runs.cpu_ms) for name, runs in found.items()}


def _repeats(run: Callable[[], object], warm_up: int) -> int:
    for _ in range(warm_up):
        run()
    return max(1, min(_MOST_RUNS, int(_ROUND_MS / max(_time(run, 1).cpu_ms[0], 1e-4))))


def _time(run: Callable[[], object], repeats: int) -> Runs:
    start_ns, start_cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
    for _ in range(repeats):
        run()
    cpu_ns = time.thread_time_ns() - start_cpu_ns
    clock_ns = time.perf_counter_ns() - start_ns
    return Runs([clock_ns / 1e6 / repeats], [cpu_ns / 1e6 / repeats])

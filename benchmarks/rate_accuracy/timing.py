"""How long one codec takes, on one core."""

import time
from collections.abc import Callable

RUNS = 10


def best_ms(work: Callable[[], object]) -> float:
    """The least processor time of some runs: others on the machine only add to it.

    Of all threads of this process together.
    """
    work()
    least = float("inf")
    for _ in range(RUNS):
        start = time.process_time()
        work()
        least = min(least, time.process_time() - start)
    return least * 1e3

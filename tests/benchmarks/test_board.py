import subprocess
import sys

import pytest
from wan.board import board, cpu_s, why_not

from hybridge.shared.errors import ConfigError

may_not = why_not()
needs_quota = pytest.mark.skipif(bool(may_not), reason=may_not or "a quota is permitted")

SPIN = """
import threading, time
def spin():
    while time.thread_time() < 0.1:
        pass
threads = [threading.Thread(target=spin) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("done", flush=True)
input()
"""


@needs_quota
def test_a_process_on_a_board_is_throttled_with_all_its_threads() -> None:
    with board(0.25) as small:
        process = subprocess.Popen(
            small.command([sys.executable, "-c", SPIN]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        throttling = small.throttling()
        used_s = cpu_s(process.pid)
        process.communicate("\n")
    # 0.2 s of work at 2.5 ms in every 10 takes many periods, whatever else the machine does.
    assert throttling.throttled >= 10
    assert used_s >= 0.1
    assert not small.path.exists()


@pytest.mark.parametrize("share", [0.0, float("nan"), 1000.0])
def test_a_share_that_makes_no_sense_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="share of one core"), board(share):
        pass

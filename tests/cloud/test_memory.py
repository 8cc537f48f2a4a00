"""What a process does with memory that requests free."""

import platform
import subprocess
import sys

import pytest

ROUNDS, BLOCKS, BLOCK_BYTES = 50, 8, 600_000

# Requests of so many bytes, so many at a time: by how many page faults all but the first took.
SCRIPT = f"""
import resource, sys
from hybridge.cloud.memory import keep_what_is_freed
if sys.argv[1] == "keep":
    keep_what_is_freed()

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        messages = [bytearray({BLOCK_BYTES}) for _ in range({BLOCKS})]
        del messages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(3)
print(faults({ROUNDS}))
"""


def faults(word: str) -> int:
    told = subprocess.run(
        [sys.executable, "-c", SCRIPT, word], check=True, capture_output=True, text=True
    )
    return int(told.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has such settings")
def test_what_requests_free_is_used_again() -> None:
    pages = ROUNDS * BLOCKS * BLOCK_BYTES // 4096
    assert faults("") > pages / 4, "nothing to be spared here"
    assert faults("keep") < pages / 100

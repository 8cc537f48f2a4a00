import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridge.shared.errors import RequestError
from hybridge.shared.instant import clock_id, since_ms, tell

seconds = st.floats(0, 1e9)


@pytest.fixture
def booted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridge.shared.instant.clock_id", lambda: "this-boot")


@pytest.mark.usefixtures("booted")
@given(seconds, st.floats(0, 1e5))
def test_another_process_knows_how_long_ago_it_was(told_s: float, later_s: float) -> None:
    ago_ms = since_ms(tell(told_s), now_s=told_s + later_s + 1e-3)
    assert ago_ms == pytest.approx(later_s * 1e3 + 1.0, abs=0.01, rel=1e-6)


@pytest.mark.usefixtures("booted")
def test_what_lies_ahead_or_is_of_another_machine_says_nothing() -> None:
    assert since_ms(tell(10.0), now_s=9.9) is None
    assert since_ms("another-boot:9.0", now_s=10.0) is None
    assert since_ms(":9.0", now_s=10.0) is None
    assert since_ms("9.0", now_s=10.0) is None
    assert since_ms("this-boot:nan", now_s=10.0) is None


@pytest.mark.usefixtures("booted")
def test_a_machine_that_does_not_name_its_boot_tells_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hybridge.shared.instant.clock_id", lambda: "")
    assert tell(10.0) == ""
    assert since_ms(":9.0", now_s=10.0) is None


@pytest.mark.usefixtures("booted")
@pytest.mark.parametrize("told", ["", "this-boot", "this-boot:", "this-boot:soon"])
def test_what_is_no_instant_is_refused(told: str) -> None:
    with pytest.raises(RequestError, match="is no instant"):
        since_ms(told, now_s=10.0)


def test_the_kernel_names_the_boot_and_the_clock() -> None:
    boot, _, namespace = clock_id().partition("/")
    assert boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert namespace.isdecimal() == Path("/proc/self/ns/time").exists()
    assert ":" not in clock_id()


_TELLS = "import time; from hybridge.shared.instant import tell; print(tell(time.monotonic()))"
_CLONE_NEWTIME = 0x80


@pytest.fixture
def another_clock() -> list[str]:
    """The command that runs another one with a monotonic clock that is a second behind."""
    return [sys.executable, "-c", f"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare({_CLONE_NEWTIME}):
    raise SystemExit(os.strerror(ctypes.get_errno()))
open("/proc/self/timens_offsets", "w").write("monotonic -1 0")
os.execv(sys.argv[1], sys.argv[1:])
"""]  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="time namespaces need root")
@pytest.mark.skipif(not Path("/proc/self/ns/time").exists(), reason="no time namespaces here")
def test_a_container_with_a_clock_of_its_own_says_nothing(another_clock: list[str]) -> None:
    """Its boot is ours: by that alone what it sent just now was sent a second ago."""
    here = [sys.executable, "-c", _TELLS]

    def told_by(command: list[str]) -> str:
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        return ran.stdout.strip()

    assert since_ms(told_by(here), now_s=time.monotonic()) is not None
    assert since_ms(told_by([*another_clock, *here]), now_s=time.monotonic()) is None

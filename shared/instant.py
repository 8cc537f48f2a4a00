"""Instants that the processes of one machine can tell one another: its clock's name and reading.

    BOOT/NAMESPACE:SECONDS    the kernel's id of this boot, the time namespace, the monotonic clock

Nothing else makes two monotonic clocks comparable, and a clock of the day may be set at any time.
Containers with a time namespace of their own (`unshare --time`, runc) share the boot but not the
clock. Clones of one virtual machine's snapshot share both names, until they are booted anew.
"""

from functools import cache
from pathlib import Path

from .errors import RequestError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TIME_NAMESPACE = Path("/proc/self/ns/time")


@cache
def clock_id() -> str:
    """What this process' monotonic clock is called; empty where nobody says."""
    try:
        boot = _BOOT_ID.read_text().strip()
    except OSError:
        return ""
    try:
        return f"{boot}/{_TIME_NAMESPACE.stat().st_ino}"
    except OSError:  # a kernel without such namespaces
        return boot


def tell(now_s: float) -> str:
    """An instant of this process' monotonic clock for others; empty if it has no name."""
    return f"{clock_id()}:{now_s:.6f}" if clock_id() else ""


def since_ms(told: str, *, now_s: float) -> float | None:
    """How long ago an instant was; None if it is another clock's, or lies ahead.

    RequestError for what is no instant.
    """
    clock, _, at = told.rpartition(":")
    try:
        ago_ms = (now_s - float(at)) * 1e3
    except ValueError:
        raise RequestError(f"{told!r} is no instant") from None
    return ago_ms if clock and clock == clock_id() and ago_ms >= 0.0 else None

"""Instants that the processes of one machine can tell one another: its boot and its clock since.

    BOOT:SECONDS    the kernel's id of this boot, and the monotonic clock's reading

Nothing else makes two monotonic clocks comparable, and a clock of the day may be set at any time.
"""

from functools import cache
from pathlib import Path

from .errors import RequestError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot_id() -> str:
    """What this boot of the machine is called; empty where nobody says."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def tell(now_s: float) -> str:
    """An instant of this machine's monotonic clock for other processes; empty if it has no name."""
    return f"{boot_id()}:{now_s:.6f}" if boot_id() else ""


def since_ms(told: str, *, now_s: float) -> float | None:
    """How long ago an instant was; None if it is another machine's, or lies ahead.

    RequestError for what is no instant. Containers share the clock of their machine, unless they
    were given one of their own: what they tell can be any time ago.
    """
    boot, _, at = told.rpartition(":")
    try:
        ago_ms = (now_s - float(at)) * 1e3
    except ValueError:
        raise RequestError(f"{told!r} is no instant") from None
    return ago_ms if boot and boot == boot_id() and ago_ms >= 0.0 else None

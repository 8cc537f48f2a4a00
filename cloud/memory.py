"""What this process takes of the machine's memory, by the kernel's account."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(process: int | None = None) -> int:
    """In memory now, mapped files as far as they were read included (VmRSS, proc(5)).

    Of this process or another, which may have ended: OSError.
    """
    statm = Path(f"/proc/{process or 'self'}/statm").read_text()
    return int(statm.split()[1]) * _PAGE_BYTES


def give_back() -> None:
    """Lets the system have what was freed; glibc keeps it for the next allocation otherwise."""
    with suppress(AttributeError, OSError):  # musl has no such call, and keeps less
        ctypes.CDLL(None).malloc_trim(0)

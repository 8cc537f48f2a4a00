"""What this process takes of the machine's memory, by the kernel's account."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""As mallopt(3) numbers them."""
_KEPT_BYTES, _MAPPED_FROM_BYTES = 64 << 20, 32 << 20


def resident_bytes(process: int | None = None) -> int:
    """In memory now, mapped files as far as they were read included (VmRSS, proc(5)).

    Of this process or another, which may have ended: OSError.
    """
    statm = Path(f"/proc/{process or 'self'}/statm").read_text()
    return int(statm.split()[1]) * _PAGE_BYTES


def keep_what_is_freed() -> None:
    """Has the next request use what the last one freed, instead of fetching it page by page.

    glibc comes to these values by itself once a block of 32 MiB was freed. Before that, whether a
    large message costs two hundred page faults or two depends on what was freed at the start.
    """
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


def give_back() -> None:
    """Lets the system have what was freed; glibc keeps it for the next allocation otherwise."""
    with suppress(AttributeError, OSError):  # musl has no such call, and keeps less
        ctypes.CDLL(None).malloc_trim(0)

"""What has left the device within the last hour. Pure: the clock is an argument."""

from collections import Counter, deque
from enum import Enum, auto

_HOUR_S = 3600.0
_SLOTS = 360
"""Bytes are booked to slots of ten seconds: an hour is exact to that."""


class Purpose(Enum):
    """What bytes leave the device for."""

    ANSWERS = auto()
    FINALS = auto()
    AUDITS = auto()
    PROBES = auto()


class Ledger:
    """Bytes sent, remembered for an hour, and by purpose for ever.

    >>> ledger = Ledger()
    >>> ledger.book(1_000, now_s=0.0)
    >>> ledger.spent_bytes(now_s=3599.0), ledger.spent_bytes(now_s=3611.0)
    (1000, 0)
    """

    def __init__(self) -> None:
        self._slots: deque[tuple[float, int]] = deque()
        self._sum = 0
        self.by_purpose: Counter[Purpose] = Counter()

    @property
    def total_bytes(self) -> int:
        """Since the start."""
        return self.by_purpose.total()

    def book(self, size_bytes: int, *, now_s: float, purpose: Purpose = Purpose.ANSWERS) -> None:
        """So many bytes leave now."""
        self._forget(now_s)
        width_s = _HOUR_S / _SLOTS
        slot_s = now_s // width_s * width_s
        if self._slots and self._slots[-1][0] == slot_s:
            size_before = self._slots.pop()[1]
            self._slots.append((slot_s, size_before + size_bytes))
        else:
            self._slots.append((slot_s, size_bytes))
        self._sum += size_bytes
        self.by_purpose[purpose] += size_bytes

    def spent_bytes(self, *, now_s: float) -> int:
        """Within the last hour, rounded up to the slot."""
        self._forget(now_s)
        return self._sum

    def _forget(self, now_s: float) -> None:
        while self._slots and self._slots[0][0] + _HOUR_S / _SLOTS <= now_s - _HOUR_S:
            self._sum -= self._slots.popleft()[1]

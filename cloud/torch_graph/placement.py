"""Which weights of a model that does not fit stay in memory, and which are read for each run.

Pure: sizes in, places out. A run reads every weight once and always in the same order. Of such a
circle a cache that drops the least recently used keeps nothing, so what stays in memory is fixed:
as much as fits. It is spread evenly over the run, so that the rest is read while the processor is
busy with what is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ...shared.errors import BundleError
from ...shared.sizes import written_bytes

_SMALL_BYTES = 1 << 20
"""Smaller weights always stay: reading them would cost more than it saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which weights are read for every run, and through how many buffers."""

    read: frozenset[str]
    buffers: int


def place(sizes: Mapping[str, int], *, budget_bytes: int, in_flight: float = 1.0) -> Placement:
    """The places of weights with these sizes in memory, in the order of a run.

    While it is being read and used, a weight takes `in_flight` times its size. Two buffers, so that
    one is filled while the other is computed with; one where two leave no room. BundleError if not
    even the largest fits.

    >>> place({"a": 4 << 20, "b": 4 << 20, "c": 4 << 20}, budget_bytes=9 << 20).buffers
    2
    """
    total = sum(sizes.values())
    if total <= budget_bytes:
        return Placement(read=frozenset(), buffers=0)
    large = {name: size for name, size in sizes.items() if size >= _SMALL_BYTES}
    small_bytes = total - sum(large.values())
    buffer_bytes = int(max(large.values(), default=0) * in_flight)
    for buffers in (2, 1):
        spare = budget_bytes - small_bytes - buffers * buffer_bytes
        if spare >= 0 and large:
            read = frozenset(large) - _spread(large, spare)
            return Placement(read=read, buffers=buffers)
    raise BundleError(
        f"its largest layer takes {written_bytes(buffer_bytes)}, its many small weights "
        f"{written_bytes(small_bytes)}; {written_bytes(budget_bytes)} are left for weights: "
        "raise --memory-limit"
    )


def _spread(sizes: Mapping[str, int], spare: int) -> set[str]:
    """What stays, of what is taken in turn: every part of the run keeps about the same share."""
    share = spare / sum(sizes.values())
    kept: set[str] = set()
    passed = taken = 0
    for name, size in sizes.items():
        passed += size
        if taken + size <= min(share * passed + size / 2, spare):
            kept.add(name)
            taken += size
    for name, size in sizes.items():  # what rounding left over
        if name not in kept and taken + size <= spare:
            kept.add(name)
            taken += size
    return kept

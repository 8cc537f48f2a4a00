"""Amounts of memory as people write them."""

import re

from .errors import ConfigError

_UNITS = {"": 1, "B": 1} | {
    f"{letter}{kind}": base**power
    for kind, base in (("B", 1000), ("iB", 1024))
    for power, letter in enumerate(("k" if base == 1000 else "K", "M", "G", "T"), start=1)
}
_WRITTEN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)")


def parse_bytes(text: str) -> int:
    """Bytes, from a number with or without a unit; ConfigError if it is none.

    >>> parse_bytes("4GiB"), parse_bytes("1.5 MB"), parse_bytes("4096")
    (4294967296, 1500000, 4096)
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None or found[2] not in _UNITS:
        units = ", ".join(unit for unit in _UNITS if unit)
        raise ConfigError(f"{text!r} is no amount of memory; write 4GiB, for example ({units})")
    return int(float(found[1]) * _UNITS[found[2]])


def written_bytes(amount: int) -> str:
    """For people, in binary units.

    >>> written_bytes(4_563_402_752), written_bytes(300)
    ('4.25 GiB', '300 B')
    """
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if abs(amount) >= _UNITS[unit]:
            return f"{amount / _UNITS[unit]:.4g} {unit}"
    return f"{amount} B"

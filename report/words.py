"""Figures as a reader wants them: few digits, a unit, and no rounding up to a promise."""

import math

SPACE = "\u00a0"
NOTHING = "\u2013"
"""Stands where there is no figure."""


def ms_words(ms: float) -> str:
    """A time without its unit.

    >>> ms_words(9.64), ms_words(141.8)
    ('9.6', '142')
    """
    if not math.isfinite(ms):
        return "?"
    return f"{ms:.1f}" if abs(ms) < 9.95 else f"{ms:,.0f}"


def bytes_words(count: float) -> str:
    r"""A size with its unit, powers of 1000.

    >>> bytes_words(812), bytes_words(18_240), bytes_words(2_500_000)
    ('812\xa0B', '18.2\xa0kB', '2.5\xa0MB')
    """
    for unit, size in (("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            value = count / size
            return f"{value:.0f}{SPACE}{unit}" if value >= 99.5 else f"{value:.1f}{SPACE}{unit}"
    return f"{count:.0f}{SPACE}B"


def share_words(part: int, whole: int) -> str:
    r"""A share in percent; 100 only if it is all, 0 only if it is none.

    >>> share_words(999, 1000), share_words(7, 7), share_words(1, 1000)
    ('99\xa0%', '100\xa0%', '1\xa0%')
    """
    if not whole:
        return NOTHING
    percent = 100 * part // whole
    return f"{max(percent, 1) if part else 0}{SPACE}%"


def rate_words(value: float, *, digits: int = 0) -> str:
    r"""A rate or a confidence in percent.

    >>> rate_words(0.957), rate_words(0.9996), rate_words(1.0)
    ('96\xa0%', '>99\xa0%', '100\xa0%')
    """
    if not math.isfinite(value):
        return "?"
    words = f"{100 * value:.{digits}f}"
    if value < 1 and float(words) >= 100:
        words = ">99" if not digits else ">99.9"
    return f"{words}{SPACE}%"


def count_words(count: int, noun: str) -> str:
    """A count with its noun.

    >>> count_words(1, "answer"), count_words(1200, "answer")
    ('1 answer', '1,200 answers')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"

"""What if: which plan the router would take, by how much, and from which budget on. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

from msgspec.structs import replace

from ...edge.question import Question
from ...edge.router import Decision, Option, choose
from ..words import ms_words


@dataclass(frozen=True, slots=True)
class Rung:
    """From this budget on, this option is taken."""

    from_ms: float
    option: Option


@dataclass(frozen=True, slots=True)
class Verdict:
    """The plan taken, the one that would be without it, and how far they are apart, in words."""

    decision: Decision
    runner_up: Option | None
    words: str


def verdict(options: Sequence[Option], *, left_ms: float) -> Verdict:
    """The router's choice for the time left, and its margin."""
    decision = choose(options, Question(left_ms=left_ms))
    taken = decision.option
    if not decision.fits:
        late = f"it takes {ms_words(taken.total_ms)} ms" if isfinite(taken.total_ms) else "untimed"
        return Verdict(decision, None, f"nothing fits: the device answers as it can ({late})")
    without = [replace(o, device_ms=inf) if o is taken else o for o in options]
    second = choose(without, Question(left_ms=left_ms))
    if not second.fits:
        return Verdict(decision, None, "nothing else fits")
    words = f"{_margin(taken, second.option)} {second.option.plan}"
    return Verdict(decision, second.option, words)


def ladder(options: Sequence[Option]) -> list[Rung]:
    """From which budget on which option is taken, until more time changes nothing."""
    rungs: list[Rung] = []
    for budget_ms in sorted({o.total_ms for o in options if isfinite(o.total_ms)}):
        decision = choose(options, Question(left_ms=budget_ms))
        if decision.fits and (not rungs or rungs[-1].option is not decision.option):
            rungs.append(Rung(budget_ms, decision.option))
    return rungs


def _margin(taken: Option, second: Option) -> str:
    gap = taken.agreement.value - second.agreement.value
    sooner_ms = second.total_ms - taken.total_ms
    when = f"{ms_words(abs(sooner_ms))} ms {'sooner' if sooner_ms >= 0 else 'later'} than"
    if second.agreement.value >= taken.agreement.value - taken.agreement.standard_error:
        return f"a tie within the standard error, {when}"
    return f"{gap * 100:.1f} points better and {when}"

"""What if: which plan the router would take, by how much, and from which budget on. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

from ...edge.question import Question
from ...edge.router import Decision, Option, choose, explain
from ..words import ms_words, rate_words
from .tables import rate


@dataclass(frozen=True, slots=True)
class Answer:
    """What an option gives by a budget: of its whole frame, or of the first layers alone.

    `layers` is None for the whole.
    """

    option: Option
    agreement: float
    network_ms: float
    total_ms: float
    layers: int | None = None

    @classmethod
    def of(cls, option: Option, *, left_ms: float) -> "Answer":
        """On an ideal link, where nothing is left to chance."""
        part = option.sure_part(left_ms)
        if part is None:
            return cls(option, option.agreement.value, option.network_ms, option.total_ms)
        total_ms = part.total.mean_ms
        network_ms = total_ms - (option.device_ms + option.cloud_ms)
        return cls(option, part.agreement, network_ms, total_ms, part.layers)

    @property
    def rate_words(self) -> str:
        """Its agreement; the table's standard error is that of the whole."""
        if self.layers is None:
            return rate(self.option.agreement)
        return rate_words(self.agreement, digits=1)

    @property
    def layer_words(self) -> str:
        """Empty for the whole."""
        if self.layers is None:
            return ""
        return f"first {self.layers} layers" if self.layers > 1 else "first layer"


@dataclass(frozen=True, slots=True)
class Rung:
    """From this budget on, this is answered."""

    from_ms: float
    answer: Answer


@dataclass(frozen=True, slots=True)
class Verdict:
    """The plan taken, the one that would be without it, and how far they are apart, in words."""

    decision: Decision
    answer: Answer
    runner_up: Option | None
    words: str


def decided(options: Sequence[Option], *, left_ms: float) -> list[tuple[Answer, str]]:
    """Every option, best first, with the reason why the router takes it or not."""
    found = explain(options, Question(left_ms=left_ms))
    return [(Answer.of(option, left_ms=left_ms), why) for option, why in found]


def verdict(options: Sequence[Option], *, left_ms: float) -> Verdict:
    """The router's choice for the time left, and its margin."""
    decision = choose(options, Question(left_ms=left_ms))
    taken = Answer.of(decision.option, left_ms=left_ms)
    if not decision.fits:
        late = f"it takes {ms_words(taken.total_ms)} ms" if isfinite(taken.total_ms) else "untimed"
        words = f"nothing fits: the device answers as it can ({late})"
        return Verdict(decision, taken, None, words)
    without = [o._replace(device_ms=inf, parts=()) if o is taken.option else o for o in options]
    second = choose(without, Question(left_ms=left_ms))
    if not second.fits:
        return Verdict(decision, taken, None, "nothing else fits")
    words = f"{_margin(taken, Answer.of(second.option, left_ms=left_ms))} {second.option.plan}"
    return Verdict(decision, taken, second.option, words)


def ladder(options: Sequence[Option]) -> list[Rung]:
    """From which budget on what is answered, until more time changes nothing."""
    times = {o.total_ms for o in options} | {p.total.mean_ms for o in options for p in o.parts}
    rungs: list[Rung] = []
    for budget_ms in sorted(filter(isfinite, times)):
        decision = choose(options, Question(left_ms=budget_ms))
        answer = Answer.of(decision.option, left_ms=budget_ms)
        if decision.fits and (not rungs or rungs[-1].answer != answer):
            rungs.append(Rung(budget_ms, answer))
    return rungs


def _margin(taken: Answer, second: Answer) -> str:
    gap = taken.agreement - second.agreement
    sooner_ms = second.total_ms - taken.total_ms
    when = f"{ms_words(abs(sooner_ms))} ms {'sooner' if sooner_ms >= 0 else 'later'} than"
    if second.agreement >= taken.agreement - taken.option.agreement.standard_error:
        return f"a tie within the standard error, {when}"
    return f"{gap * 100:.1f} points better and {when}"
